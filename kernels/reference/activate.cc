#include "kernels/core/exact_math.h"
#include "kernels/reference/ops.h"

namespace paceline::kernels::reference {

void activate(const ActivateParams& params) {
  for (std::int64_t row = 0; row < params.rows; ++row) {
    for (std::int64_t i = 0; i < params.width; ++i) {
      const std::int64_t at = row * params.width + i;
      float y = params.in[at];
      if (params.addend) y += params.addend[at];
      if (params.bias) y += params.bias[i];
      if (params.activation == Activation::kSilu) y = y / (1.0f + exact::exp(-y));
      params.out[at] = params.residual ? params.residual[at] + y : y;
    }
  }
}

}  // namespace paceline::kernels::reference
