#include <algorithm>

#include "kernels/reference/ops.h"

namespace paceline::kernels::reference {

void gather_rows(const GatherRowsParams& params) {
  for (std::int64_t row = 0; row < params.rows; ++row) {
    std::copy_n(params.in + params.index[row] * params.width, params.width,
                params.out + row * params.width);
  }
}

}  // namespace paceline::kernels::reference
