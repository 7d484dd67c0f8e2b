#include <algorithm>

#include "kernels/reference/ops.h"

namespace paceline::kernels::reference {

void join_rows(const JoinRowsParams& params) {
  for (std::int64_t row = 0; row < params.rows; ++row) {
    float* out = params.out + row * (params.left_width + params.right_width);
    out = std::copy_n(params.left + params.left_index[row] * params.left_width, params.left_width,
                      out);
    std::copy_n(params.right + row * params.right_width, params.right_width, out);
  }
}

}  // namespace paceline::kernels::reference
