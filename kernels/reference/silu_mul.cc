#include "kernels/core/exact_math.h"
#include "kernels/reference/ops.h"

namespace paceline::kernels::reference {

void silu_mul(const float* gate, const float* up, float* out, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    out[i] = gate[i] / (1.0f + exact::exp(-gate[i])) * up[i];
  }
}

}  // namespace paceline::kernels::reference
