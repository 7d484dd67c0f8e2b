#include "kernels/core/beams.h"

#include "kernels/reference/ops.h"

namespace paceline::kernels::reference {

void place_beams(const PlaceBeamsParams& params) { place_searches(params); }

void extend_beams(const ExtendBeamsParams& params) {
  for (std::int64_t search = 0; search < params.searches; ++search) extend_search(params, search);
}

void merge_beams(const MergeBeamsParams& params) {
  for (std::int64_t search = 0; search < params.searches; ++search) merge_search(params, search);
}

}  // namespace paceline::kernels::reference
