#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "kernels/drafting_params.h"

namespace paceline::kernels {

/// Trees one after the other, a row for each root and node, and the tokens chosen there.
struct Trees {
  std::vector<AcceptPlan> plans = {};
  std::vector<std::int32_t> chosen = {}, tokens = {}, parents = {};
  std::vector<std::int32_t> stop_tokens = {};

  /// One whose nodes have these parents and tokens; `chosen` after the root and each of them.
  void add(const std::vector<std::int32_t>& node_parents,
           const std::vector<std::int32_t>& node_tokens,
           const std::vector<std::int32_t>& chosen_after, std::int32_t most_tokens = 100,
           bool stops = true) {
    const auto sequence = static_cast<std::int32_t>(plans.size());
    plans.push_back({.first = static_cast<std::int32_t>(tokens.size()),
                     .nodes = static_cast<std::int32_t>(node_tokens.size()),
                     .sequence = sequence,
                     .first_slot = 10 * sequence,
                     .most_tokens = most_tokens,
                     .stops = stops ? 1 : 0});
    tokens.push_back(-5);
    parents.push_back(-5);
    tokens.insert(tokens.end(), node_tokens.begin(), node_tokens.end());
    parents.insert(parents.end(), node_parents.begin(), node_parents.end());
    chosen.insert(chosen.end(), chosen_after.begin(), chosen_after.end());
  }
};

struct Walked {
  std::vector<AcceptedPath> paths;
  std::vector<std::int32_t> last_rows;
  bool operator==(const Walked&) const = default;
};

template <typename Op>
Walked walk(const Trees& trees, const Op& op) {
  Walked walked{std::vector<AcceptedPath>(trees.plans.size()),
                std::vector<std::int32_t>(trees.plans.size(), -1)};
  for (AcceptedPath& path : walked.paths) path.nodes[3] = 77;  // of a step before
  op(AcceptPathsParams{.plans = trees.plans.data(),
                       .chosen = trees.chosen.data(),
                       .tokens = trees.tokens.data(),
                       .parents = trees.parents.data(),
                       .stop_tokens = trees.stop_tokens.data(),
                       .num_stop_tokens = std::ssize(trees.stop_tokens),
                       .paths = walked.paths.data(),
                       .last_rows = walked.last_rows.data(),
                       .trees = std::ssize(trees.plans)});
  return walked;
}

/// Trees of up to 90 nodes over three tokens, of which 2 is a stop token and few choices none.
inline Trees random_trees(std::uint32_t seed) {
  std::mt19937 random(seed);
  Trees trees{.stop_tokens = {2, 50}};
  for (int t = 0; t < 40; ++t) {
    std::vector<std::int32_t> parents, tokens, depths;
    const int most = static_cast<int>(random() % 90);
    for (int tries = 0; tries < 4 * most && static_cast<int>(tokens.size()) < most; ++tries) {
      const auto parent = static_cast<std::int32_t>(random() % (tokens.size() + 1)) - 1;
      const auto token = static_cast<std::int32_t>(random() % 3);
      const std::int32_t depth = parent < 0 ? 1 : depths[static_cast<std::size_t>(parent)] + 1;
      bool is_new = depth <= kMaxPathLength;
      for (std::size_t i = 0; i < tokens.size(); ++i) {
        if (parents[i] == parent && tokens[i] == token) is_new = false;
      }
      if (!is_new) continue;
      parents.push_back(parent);
      tokens.push_back(token);
      depths.push_back(depth);
    }
    std::vector<std::int32_t> chosen;
    for (std::size_t i = 0; i <= tokens.size(); ++i) {
      chosen.push_back(random() % 50 == 0 ? -1 : static_cast<std::int32_t>(random() % 12 % 3));
    }
    trees.add(parents, tokens, chosen, 1 + static_cast<std::int32_t>(random() % 9),
              random() % 2 == 0);
  }
  return trees;
}

}  // namespace paceline::kernels
