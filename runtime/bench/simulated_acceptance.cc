#include "runtime/bench/simulated_acceptance.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/error.h"

namespace paceline::runtime {

using drafter::TreeNode;

SimulatedAcceptance::SimulatedAcceptance(double tokens_per_step)
    : nodes_per_step_(tokens_per_step - 1) {
  check(tokens_per_step >= 1, "{} tokens a step: at least one is sampled", tokens_per_step);
}

void SimulatedAcceptance::operator()(const drafter::TokenTree& tree,
                                     std::span<std::int32_t> chosen) {
  const auto& nodes = tree.nodes();
  check(chosen.size() == nodes.size() + 1, "{} chosen tokens for a tree of {} nodes", chosen.size(),
        nodes.size());
  if (tree.empty() || std::ranges::count(chosen, -1) > 0) return;
  owed_ += nodes_per_step_;

  std::int32_t last = TreeNode::kRoot;
  std::int32_t depth = 0;
  for (std::int32_t node = 0; node < tree.size(); ++node) {
    const std::int32_t deeper = nodes[node].depth;
    if (deeper > depth && deeper <= owed_) {
      last = node;
      depth = deeper;
    }
  }
  owed_ -= depth;
  // There the path ends: with the model's own token, unless that happens to go on in the tree.
  std::int32_t& next = chosen[last + 1];
  for (std::int32_t other = 0; tree.child(last, next) != TreeNode::kRoot; ++other) next = other;
  for (std::int32_t node = last; node != TreeNode::kRoot; node = nodes[node].parent) {
    chosen[nodes[node].parent + 1] = nodes[node].token;
  }
}

}  // namespace paceline::runtime
