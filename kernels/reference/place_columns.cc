#include <algorithm>

#include "kernels/reference/ops.h"

namespace paceline::kernels::reference {

void place_columns(const PlaceColumnsParams& params) {
  for (std::int64_t row = 0; row < params.rows; ++row) {
    std::copy_n(params.in + row * params.width, params.width,
                params.out + row * params.out_width + params.first);
  }
}

}  // namespace paceline::kernels::reference
