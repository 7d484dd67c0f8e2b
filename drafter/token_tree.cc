#include "drafter/token_tree.h"

#include <algorithm>

#include "kernels/core/beams.h"
#include "kernels/core/error.h"

namespace paceline::drafter {

void TokenTree::clear() {
  nodes_.clear();
  unmerged_rows = 0;
  saved_rows = 0;
}

std::int32_t TokenTree::add(std::int32_t parent, std::int32_t token, float log_prob, double score) {
  check(parent >= TreeNode::kRoot && parent < size(), "a node's parent is {} of {} nodes", parent,
        size());
  const std::int32_t depth = parent == TreeNode::kRoot ? 1 : nodes_[parent].depth + 1;
  nodes_.push_back({token, parent, depth, log_prob, score});
  return size() - 1;
}

std::int32_t TokenTree::child(std::int32_t parent, std::int32_t token) const {
  for (std::int32_t node = parent + 1; node < size(); ++node) {
    if (nodes_[node].parent == parent && nodes_[node].token == token) return node;
  }
  return TreeNode::kRoot;
}

void TokenTree::count_rows(std::int64_t rows) {
  unmerged_rows = rows;
  saved_rows = rows - size() - 1;
}

std::int32_t TokenTree::merge(std::int32_t parent, const Step& step) {
  const std::int32_t found = child(parent, step.token);
  if (found == TreeNode::kRoot) return add(parent, step.token, step.log_prob, step.score);
  nodes_[found].score = std::max(nodes_[found].score, step.score);
  return found;
}

void TokenTree::set_source(int drafter) {
  for (TreeNode& node : nodes_) {
    node.sources = static_cast<std::uint8_t>(1 << drafter);
    node.claim = node.score - (node.parent == TreeNode::kRoot ? 0 : nodes_[node.parent].score);
  }
}

void TokenTree::rescore(kernels::FunctionRef<void(TreeNode&, const TreeNode*)> rate) {
  for (TreeNode& node : nodes_) {
    rate(node, node.parent == TreeNode::kRoot ? nullptr : &nodes_[node.parent]);
  }
}

void TokenTree::merge(std::span<const Step> path) {
  std::int32_t at = TreeNode::kRoot;
  for (const Step& step : path) at = merge(at, step);
}

void TokenTree::merge(const TokenTree& other) {
  std::vector<std::int32_t> index_of;
  for (const TreeNode& node : other.nodes_) {
    const std::int32_t parent =
        node.parent == TreeNode::kRoot ? TreeNode::kRoot : index_of[node.parent];
    index_of.push_back(merge(parent, {node.token, node.log_prob, node.score}));
    TreeNode& merged = nodes_[index_of.back()];
    if (merged.sources == 0) merged.claim = node.claim;
    merged.sources |= node.sources;
  }
  if (!empty()) count_rows(unmerged_rows + other.unmerged_rows);
}

void TokenTree::prune(std::int32_t most) {
  if (size() <= most) return;
  std::vector<double> scores;
  for (const TreeNode& node : nodes_) scores.push_back(node.score);
  std::vector<std::int32_t> index_of(nodes_.size(), TreeNode::kRoot);
  std::vector<TreeNode> kept;
  for (const std::int32_t old : kernels::best_indices(scores, most)) {
    TreeNode node = nodes_[old];
    if (node.parent != TreeNode::kRoot) {
      node.parent = index_of[node.parent];
      check(node.parent != TreeNode::kRoot, "a node scores higher than its parent");
    }
    index_of[old] = static_cast<std::int32_t>(kept.size());
    kept.push_back(node);
  }
  nodes_ = std::move(kept);
}

AncestorLists ancestor_lists(const TokenTree& tree) {
  AncestorLists lists;
  lists.first.reserve(tree.nodes().size());
  for (std::int32_t node = 0; node < tree.size(); ++node) {
    const std::int32_t parent = tree.nodes()[node].parent;
    const auto first = static_cast<std::int32_t>(lists.nodes.size());
    if (parent != TreeNode::kRoot) {
      // The parent's list is finished: copied by index, for the vector may move.
      const std::int32_t begin = lists.first[parent];
      const std::int32_t depth = tree.nodes()[parent].depth;
      for (std::int32_t i = 0; i < depth; ++i) {
        const std::int32_t ancestor = lists.nodes[begin + i];
        lists.nodes.push_back(ancestor);
      }
    }
    lists.nodes.push_back(node);
    lists.first.push_back(first);
  }
  return lists;
}

}  // namespace paceline::drafter
