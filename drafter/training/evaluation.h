#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "drafter/drafter.h"
#include "drafter/training/network.h"
#include "drafter/training/rank_sums.h"
#include "drafter/training/teacher_data.h"
#include "kernels/api.h"

namespace paceline::drafter {

/// Numbers of tokens that are tried after each node: 1 is the chain of the likeliest tokens; with
/// k > 1 the k likeliest, a bound on what k beams can reach.
inline constexpr std::array<int, 4> kTriedTokens{1, 2, 4, 8};

/// How good a head is on texts that it was not trained on, verified greedily: a token is accepted
/// if it is the text's.
struct Evaluation {
  double loss = 0;  ///< mean, as in training
  /// [depth]: of the positions where the likeliest tokens of all depths before were accepted, the
  /// share where that of this depth is, too.
  std::vector<double> acceptance;
  /// [kTriedTokens]: tokens that a step of decoding adds, the one that verification itself brings
  /// included, when the texts are walked from their first positions to their last.
  std::array<double, kTriedTokens.size()> tokens_per_step{};
  double positions = 0;  ///< that were judged, over all ranks
};

/// Judges a head on this rank's held-out texts and sums over all ranks; the same on each of them.
/// At most `most_positions` go through the network at once.
Evaluation evaluate(HeadNetwork& network, const HeadTensors& head, TeacherData& data,
                    RankSums& sums, int most_positions);

/// What a drafter reaches on texts whose tokens are known.
struct DraftSimulation {
  std::int64_t steps = 0;   ///< of decoding: trees
  std::int64_t tokens = 0;  ///< that these steps add
  std::int64_t nodes = 0;   ///< of the trees
  double tokens_per_step() const {
    return steps > 0 ? static_cast<double>(tokens) / static_cast<double>(steps) : 0;
  }
};

/// Walks each text from its first position to its last as greedy decoding would: drafts, accepts
/// what the text goes on with, goes on behind that. A position's `steps` bound the draft's depth; a
/// walk ends at one without any. Tokens behind the text's end are not counted. Texts are drafted
/// for together, one step of each at a time.
DraftSimulation simulate_drafts(Drafter& drafter, kernels::Backend& backend,
                                std::span<const TeacherRows> texts, const DraftShape& shape);

}  // namespace paceline::drafter
