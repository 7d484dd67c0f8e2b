#include "runtime/bench/fixed_tree_drafter.h"

#include <algorithm>

#include "kernels/core/error.h"

namespace paceline::runtime {

drafter::DraftShape FixedTreeDrafter::shape_of(std::int32_t nodes) {
  constexpr std::int32_t kDepth = 4;
  check(nodes >= 0 && nodes <= kDepth * drafter::kMaxDraftWidth, "a tree of {} nodes", nodes);
  if (nodes == 0) return {};
  const std::int32_t depth = std::min(nodes, kDepth);
  return {.width = (nodes + depth - 1) / depth, .depth = depth, .max_nodes = nodes};
}

std::int32_t FixedTreeDrafter::most_nodes(const drafter::DraftShape& shape) const {
  return drafter::limited_nodes(shape, shape.width, shape.depth);
}

// Path p is the tokens t + p + 1, t + p + 2, ... after the last token t: siblings differ.
void FixedTreeDrafter::draft(const drafter::DraftBatch& batch,
                             std::vector<drafter::TokenTree>& trees) {
  trees.resize(batch.requests.size());
  for (std::size_t i = 0; i < trees.size(); ++i) {
    const drafter::DraftShape shape = drafter::checked_shape(batch.requests[i]);
    drafter::TokenTree& tree = trees[i];
    tree.clear();
    const std::int32_t most = most_nodes(shape);
    for (std::int32_t path = 0; path < shape.width; ++path) {
      std::int32_t parent = drafter::TreeNode::kRoot;
      for (std::int32_t depth = 0; depth < shape.depth && tree.size() < most; ++depth) {
        const std::int64_t token = batch.requests[i].tokens.back() + path + depth + 1;
        parent = tree.add(parent, static_cast<std::int32_t>(token % vocab_size_), 0, 0);
      }
    }
    stats_.count(tree);
  }
}

}  // namespace paceline::runtime
