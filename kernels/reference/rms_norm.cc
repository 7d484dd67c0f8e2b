#include <cmath>

#include "kernels/core/lanes.h"
#include "kernels/reference/ops.h"

namespace paceline::kernels::reference {

void rms_norm(const RmsNormParams& params) {
  for (std::int64_t row = 0; row < params.rows; ++row) {
    const float* in = params.in + row * params.width;
    float* out = params.out + row * params.width;
    const float mean = dot_lanes(in, in, params.width) / static_cast<float>(params.width);
    const float scale = 1.0f / std::sqrt(mean + params.eps);
    for (std::int64_t i = 0; i < params.width; ++i) out[i] = in[i] * scale * params.weight[i];
  }
}

}  // namespace paceline::kernels::reference
