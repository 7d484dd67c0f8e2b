#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/core/host_device.h"
#include "kernels/drafting_params.h"

// Beam search as the ops define it, one search at a time.
//
// 1. A search begins with its root. A level comes from the candidates of its beams (at first of the
//    root): a new path's score is its beam's (the root's: 0) plus the candidate's score. Candidates
//    whose score is not above -infinity are left out: a probability of 0, or a temperature so small
//    that nothing else can win.
// 2. The new paths are ordered by score, descending, ties to the better beam, then to the lower
//    token; the first `room` are kept, and the first `width` of those are the next beams.
// 3. All in double, so the choice is the same on every machine.

namespace paceline::kernels {

/// Scores of the candidates of one row (candidate_score); at temperature above 0 less the largest
/// of them, so that they are never above 0.
std::vector<double> candidate_scores(const SamplingRow& sampling,
                                     std::span<const std::int32_t> tokens,
                                     std::span<const float> log_probs);

/// Beams that the next level will come from; 0 where the search has ended.
PACELINE_HOST_DEVICE inline std::int32_t open_beams(const BeamPlan& plan, const BeamState& state) {
  if (state.end != BeamEnd::kNone) return 0;
  if (state.levels == 0) return 1;
  return std::min(plan.width, state.places[state.levels - 1]);
}

/// The paths of the last level found, the beams first; null: there is none yet.
PACELINE_HOST_DEVICE inline const Beam* last_level(const Beam* levels, std::int64_t stride,
                                                   const BeamPlan& plan, const BeamState& state) {
  return state.levels == 0 ? nullptr : levels + (state.levels - 1) * stride + plan.first;
}

/// Lays out the rows of a search's `beams` open beams, from `row` on.
PACELINE_HOST_DEVICE inline void place_search(const PlaceBeamsParams& params, std::int64_t search,
                                              std::int64_t row, std::int32_t beams) {
  const BeamPlan& plan = params.plans[search];
  BeamState& state = params.states[search];
  const Beam* level = last_level(params.levels, params.stride, plan, state);
  for (std::int32_t b = 0; b < beams; ++b) {
    params.tokens[row + b] = params.start ? plan.root : level[b].token;
    params.parent_rows[row + b] = params.start ? 0 : state.first_row + level[b].parent;
    params.hidden_rows[row + b] = plan.hidden_row;
  }
  state.first_row = static_cast<std::int32_t>(row);
}

/// The indices of the `most` largest scores, ties to the lower index, ascending.
std::vector<std::int32_t> best_indices(std::span<const double> scores, std::int32_t most);

/// The ops for one search, and for all.
void extend_search(const ExtendBeamsParams& params, std::int64_t search);
void merge_search(const MergeBeamsParams& params, std::int64_t search);
void place_searches(const PlaceBeamsParams& params);

}  // namespace paceline::kernels
