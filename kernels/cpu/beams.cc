#include "kernels/core/beams.h"

#include "kernels/cpu/ops.h"
#include "kernels/cpu/split.h"

namespace paceline::kernels::cpu {
namespace {

constexpr std::int64_t kLeastSearches = 2;  // that are worth a thread

}  // namespace

void place_beams(const PlaceBeamsParams& params) { place_searches(params); }

void extend_beams(const ExtendBeamsParams& params, ThreadPool& pool) {
  split(pool, params.searches, kLeastSearches, 1, [&](IndexRange searches) {
    for (std::int64_t s = searches.begin; s < searches.end; ++s) extend_search(params, s);
  });
}

void merge_beams(const MergeBeamsParams& params, ThreadPool& pool) {
  split(pool, params.searches, kLeastSearches, 1, [&](IndexRange searches) {
    for (std::int64_t s = searches.begin; s < searches.end; ++s) merge_search(params, s);
  });
}

}  // namespace paceline::kernels::cpu
