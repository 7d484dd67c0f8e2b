#pragma once

#include <array>
#include <cstdint>

#include "drafter/acceptance.h"
#include "drafter/token_tree.h"

namespace paceline::drafter {

/// Learns, from what verification says of drafts, how often a drafted token of each kind is the
/// one. A kind is who drafted it (TreeNode::sources), how deep, and the chance claimed for it: by
/// a lookup from the length of its match, by a head from its log-probability, at T > 0 from what
/// the shared noise leaves of that. Each claims on a scale of its own; on one scale they can
/// compete for the rows of a tree.
///
/// What is kept are counts of tokens: ranks that rate and learn the same in the same order stay
/// equal.
class AcceptanceCalibration {
 public:
  /// Replaces every node's score by the sum of the logs of the learnt chances along its path.
  /// `sampled`: the request's temperature is above 0.
  void rate(TokenTree& tree, bool sampled) const;

  /// Of a verified tree: whether a node was chosen, of every node whose parent was accepted.
  void learn(const TokenTree& tree, const Accepted& accepted, bool sampled);

  /// The learnt chance of a node: its claim at first, then more and more the share of its kind that
  /// was chosen.
  double chance(const TreeNode& node, bool sampled) const;

 private:
  static constexpr std::int32_t kSources = 4;  // sets of two drafters
  static constexpr std::int32_t kDepths = 4;   // 1, 2, 3, deeper
  static constexpr std::int32_t kBins = 24;    // of claims
  static constexpr std::int32_t kKinds = 2 * kSources * kDepths * kBins;

  static std::int32_t kind_of(const TreeNode& node, double claim, bool sampled);

  struct Count {
    std::int32_t tried = 0;
    std::int32_t chosen = 0;
  };
  std::array<Count, kKinds> counts_{};
};

}  // namespace paceline::drafter
