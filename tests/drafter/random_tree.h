#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "drafter/token_tree.h"

namespace paceline::drafter {

using Tokens = std::vector<std::int32_t>;

/// The tokens from the root's child to a node: the slow way, by following parents.
inline Tokens path_to(const TokenTree& tree, std::int32_t node) {
  Tokens reversed;
  for (; node != TreeNode::kRoot; node = tree.nodes()[node].parent) {
    reversed.push_back(tree.nodes()[node].token);
  }
  return {reversed.rbegin(), reversed.rend()};
}

/// The paths to the nodes without children.
inline std::vector<Tokens> leaves(const TokenTree& tree) {
  std::vector<Tokens> paths;
  for (std::int32_t node = 0; node < tree.size(); ++node) {
    const bool inner = std::any_of(tree.nodes().begin(), tree.nodes().end(),
                                   [&](const TreeNode& other) { return other.parent == node; });
    if (!inner) paths.push_back(path_to(tree, node));
  }
  return paths;
}

using Paths = std::vector<Tokens>;

/// A tree of few tokens, so that it branches everywhere, with scores that fall along its paths
/// (some not at all).
inline TokenTree random_tree(std::mt19937& random, int nodes, int tokens) {
  TokenTree tree;
  while (tree.size() < nodes) {
    const auto parent = static_cast<std::int32_t>(random() % (tree.size() + 1)) - 1;
    const auto token = static_cast<std::int32_t>(random() % tokens);
    if (tree.child(parent, token) != TreeNode::kRoot) continue;
    const double above = parent == TreeNode::kRoot ? 0 : tree.nodes()[parent].score;
    const auto log_prob = -static_cast<float>(random() % 4);
    tree.add(parent, token, log_prob, above + log_prob);
  }
  return tree;
}

}  // namespace paceline::drafter
