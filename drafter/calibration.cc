#include "drafter/calibration.h"

#include <algorithm>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/core/exact_math.h"

namespace paceline::drafter {
namespace {

// What a chance counts before anything was learnt, in verified tokens.
constexpr double kPrior = 6;
// Old counts fade: a text's habits change.
constexpr std::int32_t kMostTried = 4096;

// Likely tokens, whose differences matter, in steps of a sixteenth; the others by factors of 1.4.
//
// Example: 1 is in bin 0, 0.9 in 1, 0.5 in 8, 0.3 in 9, 0.01 in 19.
std::int32_t bin_of(double chance, std::int32_t bins) {
  if (chance >= 0.5) return static_cast<std::int32_t>((1 - chance) * 16);
  std::int32_t bin = 9;
  for (double bound = 0.5 / 1.4142135623730951; chance < bound && bin < bins - 1;
       bound /= 1.4142135623730951) {
    ++bin;
  }
  return bin;
}

double claim_of(const TreeNode& node) { return std::min(1.0, kernels::exact::exp(node.claim)); }

}  // namespace

std::int32_t AcceptanceCalibration::kind_of(const TreeNode& node, double claim, bool sampled) {
  const std::int32_t depth = std::min(node.depth, kDepths) - 1;
  check(node.sources < kSources, "a node of drafters {:#x}", node.sources);
  return (((sampled ? kSources : 0) + node.sources) * kDepths + depth) * kBins +
         bin_of(claim, kBins);
}

double AcceptanceCalibration::chance(const TreeNode& node, bool sampled) const {
  const double claim = claim_of(node);
  const Count& count = counts_[static_cast<std::size_t>(kind_of(node, claim, sampled))];
  return (count.chosen + kPrior * claim) / (count.tried + kPrior);
}

void AcceptanceCalibration::rate(TokenTree& tree, bool sampled) const {
  constexpr double kSmallest = 1e-9;
  tree.rescore([&](TreeNode& node, const TreeNode* parent) {
    const double learnt = std::clamp(chance(node, sampled), kSmallest, 1.0);
    node.score = (parent != nullptr ? parent->score : 0.0) + kernels::exact::log(learnt);
  });
}

void AcceptanceCalibration::learn(const TokenTree& tree, const Accepted& accepted, bool sampled) {
  const auto& nodes = tree.nodes();
  // accepted.tokens[d] was chosen among the children of the d-th accepted node (0: the root).
  std::vector<std::int32_t> chosen_below(nodes.size() + 1, -1);
  std::int32_t at = TreeNode::kRoot;
  for (std::size_t d = 0; d < accepted.tokens.size(); ++d) {
    chosen_below[static_cast<std::size_t>(at + 1)] = accepted.tokens[d];
    if (d < accepted.nodes.size()) at = accepted.nodes[d];
  }
  for (const TreeNode& node : nodes) {
    const std::int32_t token = chosen_below[static_cast<std::size_t>(node.parent + 1)];
    if (token < 0) continue;
    Count& count = counts_[static_cast<std::size_t>(kind_of(node, claim_of(node), sampled))];
    if (count.tried == kMostTried) count = {count.tried / 2, count.chosen / 2};
    ++count.tried;
    if (node.token == token) ++count.chosen;
  }
}

}  // namespace paceline::drafter
