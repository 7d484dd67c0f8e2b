#include "kernels/core/beams.h"

#include <limits>
#include <numeric>
#include <utility>

#include "kernels/core/error.h"
#include "kernels/core/exact_math.h"
#include "kernels/core/sampling.h"

namespace paceline::kernels {
namespace {

/// All new paths of a search; false if a beam has no candidates.
bool find_paths(const ExtendBeamsParams& params, const BeamPlan& plan, const BeamState& state,
                std::vector<Beam>& paths) {
  const Beam* before = last_level(params.levels, params.stride, plan, state);
  SamplingRow sampling = plan.sampling;
  sampling.index += static_cast<std::uint64_t>(state.levels);
  std::vector<std::int32_t> tokens;
  for (std::int32_t b = 0; b < open_beams(plan, state); ++b) {
    const std::int64_t row = state.first_row + b;
    const auto count = static_cast<std::size_t>(params.counts[row]);
    if (count == 0) return false;
    const std::span ids(params.ids + row * params.k, count);
    const std::span log_probs(params.log_probs + row * params.k, count);
    tokens.assign(ids.begin(), ids.end());
    if (params.token_of != nullptr) {
      for (std::int32_t& token : tokens) token = params.token_of[token];
    }
    const std::vector<double> scores = candidate_scores(sampling, tokens, log_probs);
    const double base = before == nullptr ? 0 : before[b].score;
    for (std::size_t i = 0; i < count; ++i) {
      if (!(scores[i] > -std::numeric_limits<double>::infinity())) continue;
      paths.push_back({tokens[i], b, log_probs[i], base + scores[i]});
    }
  }
  return true;
}

bool goes_before(const Beam& a, const Beam& b) {
  if (a.score != b.score) return a.score > b.score;
  return std::pair(a.parent, a.token) < std::pair(b.parent, b.token);
}

/// Where two beams share a beginning they descend from the same beam of that level.
std::vector<PathNode> nodes_of_beams(const BeamPlan& plan, const BeamState& state,
                                     const Beam* levels, std::int64_t stride) {
  std::vector<PathNode> nodes;
  std::vector<std::int32_t> path(static_cast<std::size_t>(state.levels));
  std::vector<std::int32_t> node_of(static_cast<std::size_t>(state.levels * kMaxBeams), -1);
  const std::int32_t last = state.levels - 1;
  for (std::int32_t beam = 0; beam < std::min(plan.width, state.places[last]); ++beam) {
    path[last] = beam;
    for (std::int32_t d = last; d > 0; --d) path[d - 1] = levels[d * stride + path[d]].parent;
    std::int32_t parent = -1;
    for (std::int32_t d = 0; d <= last; ++d) {
      std::int32_t& node = node_of[d * kMaxBeams + path[d]];
      if (node < 0) {
        const Beam& at = levels[d * stride + path[d]];
        node = static_cast<std::int32_t>(nodes.size());
        nodes.push_back({at.token, parent, d + 1, at.log_prob, at.score});
      }
      parent = node;
    }
  }
  return nodes;
}

/// A path's parent is a beam of the level before, which scores no less: leaving nodes out by score
/// leaves a tree.
std::vector<PathNode> nodes_of_candidates(const BeamState& state, const Beam* levels,
                                          std::int64_t stride) {
  std::vector<PathNode> nodes;
  std::int32_t level_before = 0;
  for (std::int32_t d = 0; d < state.levels; ++d) {
    const auto begin = static_cast<std::int32_t>(nodes.size());
    for (std::int32_t i = 0; i < state.places[d]; ++i) {
      const Beam& at = levels[d * stride + i];
      const std::int32_t parent = d == 0 ? -1 : level_before + at.parent;
      nodes.push_back({at.token, parent, d + 1, at.log_prob, at.score});
    }
    level_before = begin;
  }
  return nodes;
}

void keep_best(std::vector<PathNode>& nodes, std::int32_t most) {
  if (most == 0 || std::ssize(nodes) <= most) return;
  std::vector<double> scores;
  for (const PathNode& node : nodes) scores.push_back(node.score);
  std::vector<std::int32_t> index_of(nodes.size(), -1);
  std::vector<PathNode> kept;
  for (const std::int32_t old : best_indices(scores, most)) {
    index_of[old] = static_cast<std::int32_t>(kept.size());
    kept.push_back(nodes[old]);
    std::int32_t& parent = kept.back().parent;
    if (parent >= 0) parent = index_of[parent];
  }
  nodes = std::move(kept);
}

}  // namespace

std::vector<double> candidate_scores(const SamplingRow& sampling,
                                     std::span<const std::int32_t> tokens,
                                     std::span<const float> log_probs) {
  std::vector<double> scores(tokens.size());
  for (std::size_t i = 0; i < scores.size(); ++i) {
    scores[i] = candidate_score(sampling, tokens[i], log_probs[i]);
  }
  if (!(sampling.temperature > 0) || scores.empty()) return scores;
  const double largest = *std::max_element(scores.begin(), scores.end());
  for (double& score : scores) score -= largest;
  return scores;
}

std::vector<std::int32_t> best_indices(std::span<const double> scores, std::int32_t most) {
  std::vector<std::int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  if (std::ssize(order) <= most) return order;
  const auto end = order.begin() + std::max(most, 0);
  std::nth_element(order.begin(), end, order.end(), [&](std::int32_t a, std::int32_t b) {
    return scores[a] > scores[b] || (scores[a] == scores[b] && a < b);
  });
  order.erase(end, order.end());
  std::sort(order.begin(), order.end());
  return order;
}

void extend_search(const ExtendBeamsParams& params, std::int64_t search) {
  const BeamPlan& plan = params.plans[search];
  BeamState& state = params.states[search];
  if (state.end != BeamEnd::kNone) return;
  std::vector<Beam> paths;
  if (!find_paths(params, plan, state, paths)) {
    state.end = BeamEnd::kNotFinite;
    return;
  }
  const std::int64_t count = std::min<std::int64_t>(std::ssize(paths), plan.room);
  std::partial_sort(paths.begin(), paths.begin() + count, paths.end(), goes_before);
  std::copy_n(paths.begin(), count, params.levels + state.levels * params.stride + plan.first);
  state.places[state.levels++] = static_cast<std::int32_t>(count);
  if (state.levels == plan.depth || count == 0) state.end = BeamEnd::kDone;
  if (!(plan.least_chance > 0) || plan.sampling.temperature > 0) return;
  double chance = 0;
  for (std::int64_t i = 0; i < std::min<std::int64_t>(count, plan.width); ++i) {
    chance += exact::exp(paths[i].score);
  }
  if (chance < plan.least_chance) state.end = BeamEnd::kUnlikely;
}

void merge_search(const MergeBeamsParams& params, std::int64_t search) {
  const BeamPlan& plan = params.plans[search];
  const BeamState& state = params.states[search];
  PathTree& tree = params.trees[search];
  tree = {.end = state.end};
  if (state.end == BeamEnd::kNotFinite || state.levels == 0) return;
  const Beam* levels = params.levels + plan.first;
  std::vector<PathNode> nodes;
  if (plan.any_candidate != 0) {
    nodes = nodes_of_candidates(state, levels, params.stride);
    keep_best(nodes, plan.most_nodes);
    tree.unmerged_rows = std::ssize(nodes) + 1;  // single nodes, not paths: none is merged
  } else {
    nodes = nodes_of_beams(plan, state, levels, params.stride);
    const std::int32_t beams = std::min(plan.width, state.places[state.levels - 1]);
    tree.unmerged_rows = std::int64_t{beams} * (state.levels + 1);
    tree.saved_rows = tree.unmerged_rows - std::ssize(nodes) - 1;
    keep_best(nodes, plan.most_nodes);
  }
  check(std::ssize(nodes) <= params.most_nodes, "merge_beams: a tree of {} nodes, room for {}",
        nodes.size(), params.most_nodes);
  tree.nodes = static_cast<std::int32_t>(nodes.size());
  std::copy(nodes.begin(), nodes.end(), params.nodes + search * params.most_nodes);
}

void place_searches(const PlaceBeamsParams& params) {
  std::int64_t row = 0;
  for (std::int64_t search = 0; search < params.searches; ++search) {
    if (params.start) params.states[search] = {};
    const std::int32_t beams = open_beams(params.plans[search], params.states[search]);
    check(row + beams <= params.most_rows, "place_beams: more than {} rows", params.most_rows);
    place_search(params, search, row, beams);
    row += beams;
  }
  *params.num_rows = static_cast<std::int32_t>(row);
  for (std::int32_t* rows : {params.tokens, params.parent_rows, params.hidden_rows}) {
    std::fill(rows + row, rows + params.most_rows, 0);
  }
}

}  // namespace paceline::kernels
