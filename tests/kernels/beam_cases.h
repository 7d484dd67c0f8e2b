#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "kernels/drafting_params.h"

namespace paceline::kernels {

/// Candidates of some rows, as top_log_probs gives them.
struct Candidates {
  std::vector<std::int32_t> ids = {}, counts = {};
  std::vector<float> log_probs = {};
  std::int32_t k = 0;
};

/// Random ones over a few ids; with `coarse` many log-probabilities are equal. One row in
/// `not_finite` has none (0: all have some).
inline Candidates random_candidates(std::mt19937& random, std::int64_t rows, std::int32_t k,
                                    bool coarse, int not_finite) {
  Candidates found{.k = k};
  std::vector<std::int32_t> all(100);
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int32_t>(i);
    std::ranges::shuffle(all, random);
    std::vector<float> log_probs(static_cast<std::size_t>(k));
    for (float& log_prob : log_probs) {
      log_prob = -static_cast<float>(random() % (coarse ? 4 : 4000)) / 4;
      if (random() % 40 == 0) log_prob = -std::numeric_limits<float>::infinity();
    }
    std::ranges::sort(log_probs, std::greater());
    log_probs[0] = std::max(log_probs[0], -1000.0f);
    found.ids.insert(found.ids.end(), all.begin(), all.begin() + k);
    found.log_probs.insert(found.log_probs.end(), log_probs.begin(), log_probs.end());
    const bool none = not_finite > 0 && static_cast<int>(random()) % not_finite == 0;
    found.counts.push_back(none ? 0 : 1 + static_cast<std::int32_t>(random() % k));
  }
  return found;
}

/// The memory of some searches.
struct Searches {
  Searches(std::vector<BeamPlan> asked, std::int64_t rows, std::int64_t tree_nodes)
      : plans(std::move(asked)), states(plans.size()), most_rows(rows), most_nodes(tree_nodes) {
    for (BeamPlan& plan : plans) {
      plan.room = std::max(plan.room, plan.width);
      plan.first = static_cast<std::int32_t>(stride);
      stride += plan.room;
    }
    levels.resize(static_cast<std::size_t>(stride) * kMaxPathLength);
    trees.resize(plans.size());
    nodes.resize(plans.size() * static_cast<std::size_t>(most_nodes));
    tokens.assign(static_cast<std::size_t>(rows), -7);
    parent_rows = hidden_rows = tokens;
  }

  std::int64_t size() const { return std::ssize(plans); }
  PlaceBeamsParams place(bool start) {
    return {.plans = plans.data(),
            .states = states.data(),
            .levels = levels.data(),
            .stride = stride,
            .start = start,
            .tokens = tokens.data(),
            .parent_rows = parent_rows.data(),
            .hidden_rows = hidden_rows.data(),
            .num_rows = &num_rows,
            .searches = size(),
            .most_rows = most_rows};
  }
  ExtendBeamsParams extend(const Candidates& candidates, const std::int32_t* token_of) {
    return {.plans = plans.data(),
            .states = states.data(),
            .levels = levels.data(),
            .stride = stride,
            .ids = candidates.ids.data(),
            .log_probs = candidates.log_probs.data(),
            .counts = candidates.counts.data(),
            .token_of = token_of,
            .k = candidates.k,
            .searches = size()};
  }
  MergeBeamsParams merge() {
    return {.plans = plans.data(),
            .states = states.data(),
            .levels = levels.data(),
            .stride = stride,
            .trees = trees.data(),
            .nodes = nodes.data(),
            .searches = size(),
            .most_nodes = most_nodes};
  }

  std::vector<BeamPlan> plans;
  std::vector<BeamState> states;
  std::int64_t most_rows, most_nodes;
  std::int64_t stride = 0;
  std::vector<Beam> levels;
  std::vector<std::int32_t> tokens, parent_rows, hidden_rows;
  std::int32_t num_rows = 0;
  std::vector<PathTree> trees;
  std::vector<PathNode> nodes;
};

/// Searches of many shapes, greedy and sampled.
inline std::vector<BeamPlan> random_plans(std::mt19937& random, std::int32_t most_width) {
  std::vector<BeamPlan> plans;
  for (int i = 0; i < 7; ++i) {
    BeamPlan plan;
    plan.sampling.temperature = i % 2 == 0 ? 0.0f : 0.7f;
    plan.sampling.seed = random();
    plan.sampling.index = random() % 1000;
    plan.least_chance = i % 3 == 0 ? 0.2 : 0.0;
    plan.root = 40 + i;
    plan.hidden_row = 6 - i;
    plan.width = 1 + static_cast<std::int32_t>(random() % most_width);
    plan.depth = 1 + static_cast<std::int32_t>(random() % 5);
    plan.any_candidate = random() % 2 == 0 ? 1 : 0;
    plan.most_nodes = plan.any_candidate != 0 || random() % 2 == 0
                          ? 1 + static_cast<std::int32_t>(random() % 40)
                          : 0;
    if (plan.any_candidate != 0) plan.room = plan.most_nodes;
    plans.push_back(plan);
  }
  return plans;
}

/// Ops of one backend.
struct BeamOps {
  void (*place)(const PlaceBeamsParams&);
  void (*extend)(const ExtendBeamsParams&);
  void (*merge)(const MergeBeamsParams&);
};

/// All that searches of random candidates leave behind, as numbers: of every level the rows and
/// what was found, then the trees.
inline std::vector<double> all_results(const BeamOps& ops, std::uint32_t seed,
                                       std::int32_t most_width, std::int32_t k) {
  std::mt19937 random(seed);
  Searches searches(random_plans(random, most_width), 7 * most_width, 5 * most_width + 40);
  std::vector<std::int32_t> token_of(100);
  for (std::int32_t id = 0; id < 100; ++id) token_of[static_cast<std::size_t>(id)] = 3 * id + 1;
  const bool maps = seed % 2 == 0;
  std::vector<double> results;
  const auto add = [&](auto... values) { (results.push_back(static_cast<double>(values)), ...); };
  for (std::int32_t level = 0; level < 5; ++level) {
    ops.place(searches.place(level == 0));
    add(searches.num_rows);
    for (std::int64_t row = 0; row < searches.most_rows; ++row) {
      const auto r = static_cast<std::size_t>(row);
      add(searches.tokens[r], searches.parent_rows[r], searches.hidden_rows[r]);
    }
    const Candidates found =
        random_candidates(random, searches.most_rows, k, seed % 3 == 0, level == 0 ? 0 : 100);
    ops.extend(searches.extend(found, maps ? token_of.data() : nullptr));
    for (std::size_t s = 0; s < searches.plans.size(); ++s) {
      const BeamState& state = searches.states[s];
      add(state.end, state.levels);
      for (std::int32_t d = 0; d < state.levels; ++d) {
        add(state.places[d]);
        const Beam* beams = searches.levels.data() + d * searches.stride + searches.plans[s].first;
        for (const Beam& beam : std::span(beams, static_cast<std::size_t>(state.places[d]))) {
          add(beam.token, beam.parent, beam.log_prob, beam.score);
        }
      }
    }
  }
  ops.merge(searches.merge());
  for (std::size_t s = 0; s < searches.trees.size(); ++s) {
    const PathTree& tree = searches.trees[s];
    add(tree.end, tree.nodes, tree.unmerged_rows, tree.saved_rows);
    const PathNode* nodes =
        searches.nodes.data() + s * static_cast<std::size_t>(searches.most_nodes);
    for (const PathNode& node : std::span(nodes, static_cast<std::size_t>(tree.nodes))) {
      add(node.token, node.parent, node.depth, node.log_prob, node.score);
    }
  }
  return results;
}

}  // namespace paceline::kernels
