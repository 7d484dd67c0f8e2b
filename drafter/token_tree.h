#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/core/function_ref.h"

namespace paceline::drafter {

/// A drafted token. The last known token, which is not drafted, is the tree's root; it is no node.
struct TreeNode {
  static constexpr std::int32_t kRoot = -1;
  std::int32_t token = -1;
  std::int32_t parent = kRoot;  ///< index of a node that stands before it, or kRoot
  std::int32_t depth = 1;       ///< 1 for the root's children
  float log_prob = 0;           ///< the drafter's own, given the path to it
  /// By which beams were chosen and nodes are kept: at temperature 0 the sum of log_prob along the
  /// path, at most its parent's.
  double score = 0;
  /// Of trees to be merged: a bit for each drafter that drafted the node, and the log of the chance
  /// that the first of them gives it, once its parent is accepted.
  std::uint8_t sources = 0;
  double claim = 0;
  bool operator==(const TreeNode&) const = default;
};

/// What a drafter guesses may follow a request's known tokens: paths that share their beginnings
/// (dynamic tree attention of Cheng et al. 2024; Miao et al. 2023, SpecInfer). Parents stand before
/// their children, and no two children of one parent have the same token.
///
/// Example: the beams a b c, a d e and a b f are five nodes:
///
///   node    0  1  2  3  4  5        a - b - c
///   token   a  b  c  d  e  f         \   \- f
///   parent  .  0  1  0  3  1          d - e
///   depth   1  2  3  2  3  3
class TokenTree {
 public:
  const std::vector<TreeNode>& nodes() const { return nodes_; }
  bool empty() const { return nodes_.empty(); }
  std::int32_t size() const { return static_cast<std::int32_t>(nodes_.size()); }
  void clear();

  /// Adds a node; returns its index. Its depth is its parent's plus 1.
  std::int32_t add(std::int32_t parent, std::int32_t token, float log_prob, double score);
  /// The child of `parent` (or kRoot) with that token, or kRoot if there is none.
  std::int32_t child(std::int32_t parent, std::int32_t token) const;

  /// Tokens of a path from the root downwards, with what TreeNode says of each.
  struct Step {
    std::int32_t token = -1;
    float log_prob = 0;
    double score = 0;
  };
  /// Adds what is not yet there; a node that is there keeps its log_prob and gets the larger score.
  void merge(std::span<const Step> path);
  /// Adds all paths of another tree likewise.
  void merge(const TokenTree& other);

  /// Says of all nodes which drafter (from 0) they are from, and what their scores claim.
  void set_source(int drafter);
  /// Calls `rate(node, parent)` for every node, parents (null: the root) before their children; it
  /// may change what a node says of itself but not where it stands.
  void rescore(kernels::FunctionRef<void(TreeNode&, const TreeNode*)> rate);

  /// Keeps the `most` nodes of the largest score, ties to the lower index, in their order. What is
  /// left is a tree: a parent's score is no smaller than its children's, and its index is lower.
  void prune(std::int32_t most);

  /// Rows that feeding every path on its own, each with the root before it, would take, and how
  /// many of those merging saved (before any pruning). Set by who merges.
  std::int64_t unmerged_rows = 0;
  std::int64_t saved_rows = 0;
  /// Notes that the nodes so far stand for paths of `rows` rows, and what merging saved.
  void count_rows(std::int64_t rows);

  bool operator==(const TokenTree&) const = default;

 private:
  std::int32_t merge(std::int32_t parent, const Step& step);

  std::vector<TreeNode> nodes_;
};

/// For every node the nodes of its path, the root's child first, itself last.
struct AncestorLists {
  std::vector<std::int32_t> nodes;  ///< all lists, one after the other
  std::vector<std::int32_t> first;  ///< [size]: where a node's list, of its depth's length, begins
};
AncestorLists ancestor_lists(const TokenTree& tree);

}  // namespace paceline::drafter
