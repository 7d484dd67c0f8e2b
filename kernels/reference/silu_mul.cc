#include "kernels/core/exact_math.h"
#include "kernels/reference/ops.h"

namespace paceline::kernels::reference {

void silu_mul(const SiluMulParams& params) {
  for (std::int64_t row = 0; row < params.rows; ++row) {
    const float* gate = params.gate_up + row * 2 * params.width;
    const float* up = gate + params.width;
    float* out = params.out + row * params.width;
    for (std::int64_t i = 0; i < params.width; ++i) {
      out[i] = gate[i] / (1.0f + exact::exp(-gate[i])) * up[i];
    }
  }
}

}  // namespace paceline::kernels::reference
