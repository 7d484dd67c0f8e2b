#include "drafter/beam_search.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "kernels/core/error.h"
#include "kernels/core/exact_math.h"

namespace paceline::drafter {

BeamSearch::BeamSearch(const DraftShape& shape, const kernels::SamplingRow& sampling,
                       std::int32_t root)
    : shape_(shape), sampling_(sampling), levels_{{Beam{.token = root}}} {}

void BeamSearch::extend(const CandidateRows& candidates) {
  check(!done(), "a beam search went on after its end");
  const std::vector<Beam>& beams = levels_.back();
  kernels::SamplingRow sampling = sampling_;
  sampling.index += static_cast<std::uint64_t>(depth());
  std::vector<Beam> next;
  for (std::size_t b = 0; b < beams.size(); ++b) {
    const std::span tokens = candidates.tokens_of(static_cast<std::int64_t>(b));
    const std::span log_probs = candidates.log_probs_of(static_cast<std::int64_t>(b));
    if (tokens.empty()) {
      failed_ = true;
      return;
    }
    const std::vector<double> scores = candidate_scores(sampling, tokens, log_probs);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      // Not above: a probability of 0, or a temperature so small that nothing else can win.
      if (!(scores[i] > -std::numeric_limits<double>::infinity())) continue;
      next.push_back(
          {tokens[i], static_cast<std::int32_t>(b), log_probs[i], beams[b].score + scores[i]});
    }
  }
  const auto at_most = [&](std::int32_t count) {
    return std::min<std::size_t>(next.size(), static_cast<std::size_t>(count));
  };
  const std::size_t width = at_most(shape_.width);
  const bool keeps_all = shape_.any_candidate && shape_.max_nodes > 0;
  const std::size_t kept = keeps_all ? std::max(width, at_most(shape_.max_nodes)) : width;
  std::partial_sort(next.begin(), next.begin() + static_cast<std::ptrdiff_t>(kept), next.end(),
                    [](const Beam& a, const Beam& b) {
                      if (a.score != b.score) return a.score > b.score;
                      return std::pair(a.parent, a.token) < std::pair(b.parent, b.token);
                    });
  next.resize(kept);
  if (keeps_all) seen_.push_back(next);
  next.resize(width);
  if (shape_.least_chance > 0 && sampling_.temperature == 0) {
    double chance = 0;
    for (const Beam& beam : next) chance += kernels::exact::exp(beam.score);
    unlikely_ = chance < shape_.least_chance;
  }
  levels_.push_back(std::move(next));
}

TokenTree BeamSearch::tree() const {
  if (failed_ || depth() == 0) return {};
  TokenTree tree = seen_.empty() ? tree_of_beams() : tree_of_candidates();
  if (shape_.max_nodes > 0) tree.prune(shape_.max_nodes);
  if (!seen_.empty()) tree.count_rows(tree.size() + 1);  // single nodes, not paths: none is merged
  return tree;
}

// A candidate's parent is a beam of the depth before, which was seen before it and scores no less:
// pruning leaves a tree.
TokenTree BeamSearch::tree_of_candidates() const {
  TokenTree tree;
  std::vector<std::int32_t> parents{TreeNode::kRoot}, nodes;
  for (std::size_t d = 0; d < seen_.size(); ++d) {
    nodes.clear();
    for (const Beam& at : seen_[d]) {
      nodes.push_back(tree.add(parents[at.parent], at.token, at.log_prob, at.score));
    }
    parents = nodes;
  }
  return tree;
}

TokenTree BeamSearch::tree_of_beams() const {
  TokenTree tree;
  const std::int32_t last = depth();
  // Two beams share a prefix exactly where they descend from the same beam of that depth.
  std::vector<std::vector<std::int32_t>> node_of;
  for (const auto& level : levels_) node_of.emplace_back(level.size(), TreeNode::kRoot);
  std::vector<std::int32_t> path(levels_.size());
  for (std::size_t beam = 0; beam < levels_.back().size(); ++beam) {
    path[last] = static_cast<std::int32_t>(beam);
    for (std::int32_t d = last; d > 0; --d) path[d - 1] = levels_[d][path[d]].parent;
    std::int32_t parent = TreeNode::kRoot;
    for (std::int32_t d = 1; d <= last; ++d) {
      std::int32_t& node = node_of[d][path[d]];
      const Beam& at = levels_[d][path[d]];
      if (node == TreeNode::kRoot) node = tree.add(parent, at.token, at.log_prob, at.score);
      parent = node;
    }
  }
  tree.count_rows(static_cast<std::int64_t>(levels_.back().size()) * (last + 1));
  return tree;
}

}  // namespace paceline::drafter
