#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "drafter/candidates.h"
#include "drafter/token_tree.h"
#include "kernels/params.h"

namespace paceline::drafter {

/// What a head holds for possible at its depth, whatever stands before.
struct RankedToken {
  std::int32_t token = -1;
  float log_prob = 0;
  double score = 0;  ///< see kernels::candidate_scores
};

/// Candidates of one row that can come at all, by score, ties to the lower token.
std::vector<RankedToken> ranked_tokens(const kernels::SamplingRow& sampling,
                                       std::span<const std::int32_t> tokens,
                                       std::span<const float> log_probs);

/// The `nodes` nodes whose paths have the largest sum of scores: at temperature 0 the likeliest by
/// the product of the heads' probabilities. depths[d]: tokens of depth d + 1. Best first; ties go
/// to the node whose parent stands earlier, then to the better ranked token.
///
/// Example: depth 1 has a -1, b -3; depth 2 has c -1, d -2. The nodes are a -1, ac -2, then b -3,
/// whose parent is the root, before ad -3, then bc -4 and bd -5.
TokenTree most_probable_tree(std::span<const std::vector<RankedToken>> depths, std::int32_t nodes);

/// The tree of Medusa's choices (see DrafterConfig::choices), as far as the depths go and have
/// tokens of these ranks.
TokenTree chosen_tree(std::span<const std::vector<RankedToken>> depths,
                      std::span<const std::vector<std::int32_t>> choices);

}  // namespace paceline::drafter
