#include "drafter/medusa_tree.h"

#include <algorithm>
#include <limits>
#include <map>
#include <queue>
#include <utility>

#include "kernels/core/beams.h"

namespace paceline::drafter {
namespace {

/// A node that may be added next.
struct Open {
  double score = 0;  // of its path
  std::int32_t parent = TreeNode::kRoot;
  std::size_t depth = 0;  // from 0
  std::size_t rank = 0;
};

struct Worse {
  bool operator()(const Open& a, const Open& b) const {
    if (a.score != b.score) return a.score < b.score;
    return std::pair(a.parent, a.rank) > std::pair(b.parent, b.rank);
  }
};

}  // namespace

std::vector<RankedToken> ranked_tokens(const kernels::SamplingRow& sampling,
                                       std::span<const std::int32_t> tokens,
                                       std::span<const float> log_probs) {
  const std::vector<double> scores = kernels::candidate_scores(sampling, tokens, log_probs);
  std::vector<RankedToken> ranked;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (!(scores[i] > -std::numeric_limits<double>::infinity())) continue;
    ranked.push_back({tokens[i], log_probs[i], scores[i]});
  }
  std::sort(ranked.begin(), ranked.end(), [](const RankedToken& a, const RankedToken& b) {
    return a.score > b.score || (a.score == b.score && a.token < b.token);
  });
  return ranked;
}

// Best first: a node's children and its next sibling score no more than it does, so the best of
// the open ones is the best of all that are left.
TokenTree most_probable_tree(std::span<const std::vector<RankedToken>> depths, std::int32_t nodes) {
  TokenTree tree;
  std::priority_queue<Open, std::vector<Open>, Worse> open;
  const auto consider = [&](std::int32_t parent, std::size_t depth, std::size_t rank) {
    if (depth == depths.size() || rank == depths[depth].size()) return;
    const double above = parent == TreeNode::kRoot ? 0 : tree.nodes()[parent].score;
    open.push({above + depths[depth][rank].score, parent, depth, rank});
  };
  consider(TreeNode::kRoot, 0, 0);
  while (!open.empty() && tree.size() < nodes) {
    const Open best = open.top();
    open.pop();
    const RankedToken& token = depths[best.depth][best.rank];
    const std::int32_t node = tree.add(best.parent, token.token, token.log_prob, best.score);
    consider(node, best.depth + 1, 0);
    consider(best.parent, best.depth, best.rank + 1);
  }
  return tree;
}

TokenTree chosen_tree(std::span<const std::vector<RankedToken>> depths,
                      std::span<const std::vector<std::int32_t>> choices) {
  TokenTree tree;
  std::map<std::vector<std::int32_t>, std::int32_t> node_of{{{}, TreeNode::kRoot}};
  for (const std::vector<std::int32_t>& path : choices) {
    if (path.size() > depths.size()) continue;
    const std::vector<RankedToken>& tokens = depths[path.size() - 1];
    const auto parent = node_of.find({path.begin(), path.end() - 1});
    if (parent == node_of.end() || path.back() >= std::ssize(tokens)) continue;
    const RankedToken& token = tokens[path.back()];
    const double above = parent->second == TreeNode::kRoot ? 0 : tree.nodes()[parent->second].score;
    node_of[path] = tree.add(parent->second, token.token, token.log_prob, above + token.score);
  }
  return tree;
}

}  // namespace paceline::drafter
