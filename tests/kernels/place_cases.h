#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "kernels/drafting_params.h"

namespace paceline::kernels {

/// A packed batch's arrays, and what is to be placed there.
struct Placing {
  std::vector<std::int32_t> tokens = {}, positions = {}, ancestors = {};
  std::vector<RowPlace> rows = {};
  std::vector<SamplingRow> sampling = {};
  std::vector<std::int32_t> tree_tokens = {}, tree_parents = {};
  std::vector<AcceptPlan> accept = {};
  std::vector<BeamPlan> beams = {};
  std::vector<ResumePlan> resumes = {};
  std::vector<SequenceHead> heads = {};
  std::vector<TreePlace> places = {};
  std::vector<PathTree> trees = {};
  std::vector<PathNode> nodes = {};
  std::int64_t most_nodes = 0;

  BatchArrays arrays() {
    return {tokens.data(),   positions.data(),   rows.data(),         ancestors.data(),
            sampling.data(), tree_tokens.data(), tree_parents.data(), accept.data()};
  }

  /// A sequence of `length` tokens, the last of them `token`, with room for a tree behind it.
  void add_sequence(std::int32_t length, std::int32_t token, std::int32_t room,
                    std::int32_t depth) {
    const auto sequence = static_cast<std::int32_t>(accept.size());
    const auto row = static_cast<std::int32_t>(tokens.size());
    const auto sampled = static_cast<std::int32_t>(sampling.size());
    places.push_back({.accept = sequence,
                      .row = row,
                      .sampled = sampled,
                      .rows = room,
                      .sampled_rows = room,
                      .first_ancestor = static_cast<std::int32_t>(ancestors.size()),
                      .depth = depth});
    accept.push_back({.first = sampled, .sequence = sequence, .first_slot = length});
    ancestors.resize(ancestors.size() + static_cast<std::size_t>(room * depth), -7);
    for (std::int32_t i = 0; i <= room; ++i) {
      tokens.push_back(i == 0 ? token : -7);
      positions.push_back(i == 0 ? length - 1 : -7);
      rows.push_back(i == 0 ? RowPlace{sequence, length - 1, length - 1, length, 0} : RowPlace{});
      sampling.push_back({.temperature = i == 0 ? 0.5f : -7.0f,
                          .index = static_cast<std::uint64_t>(i == 0 ? length : 0)});
      tree_tokens.push_back(-7);
      tree_parents.push_back(-7);
    }
  }

  /// The tree of the sequence added last.
  void add_tree(const std::vector<PathNode>& of_tree) {
    places.back().tree = static_cast<std::int32_t>(trees.size());
    trees.push_back({.nodes = static_cast<std::int32_t>(of_tree.size())});
    nodes.resize(static_cast<std::size_t>(most_nodes) * trees.size());
    std::copy(of_tree.begin(), of_tree.end(), nodes.end() - most_nodes);
  }
};

/// All that the ops write.
struct Placed {
  std::vector<std::int32_t> words;
  std::vector<SamplingRow> sampling;
  bool operator==(const Placed& other) const {
    return words == other.words &&
           std::equal(sampling.begin(), sampling.end(), other.sampling.begin(),
                      other.sampling.end(), [](const SamplingRow& a, const SamplingRow& b) {
                        return a.temperature == b.temperature && a.index == b.index;
                      });
  }
};

template <typename Resume, typename Place>
Placed place(Placing batch, const Resume& resume, const Place& place_trees) {
  resume(ResumeSequencesParams{.plans = batch.resumes.data(),
                               .heads = batch.heads.data(),
                               .batch = batch.arrays(),
                               .beams = batch.beams.data(),
                               .count = std::ssize(batch.resumes)});
  place_trees(PlaceTreesParams{.places = batch.places.data(),
                               .trees = batch.trees.data(),
                               .nodes = batch.nodes.data(),
                               .most_nodes = batch.most_nodes,
                               .batch = batch.arrays(),
                               .count = std::ssize(batch.places)});
  Placed placed{{}, batch.sampling};
  for (const auto* words : {&batch.tokens, &batch.positions, &batch.ancestors, &batch.tree_tokens,
                            &batch.tree_parents}) {
    placed.words.insert(placed.words.end(), words->begin(), words->end());
  }
  for (const RowPlace& row : batch.rows) {
    placed.words.insert(placed.words.end(),
                        {row.sequence, row.position, row.slot, row.base, row.first_ancestor});
  }
  for (const AcceptPlan& plan : batch.accept) {
    placed.words.insert(placed.words.end(),
                        {plan.nodes, plan.first_slot, plan.most_tokens, plan.first});
  }
  for (const BeamPlan& plan : batch.beams) {
    placed.words.insert(placed.words.end(),
                        {plan.root, static_cast<std::int32_t>(plan.sampling.index)});
  }
  return placed;
}

/// Sequences of which some are behind, with random trees in room for them or more.
inline Placing random_placing(std::uint32_t seed) {
  std::mt19937 random(seed);
  Placing batch{.most_nodes = 70};
  for (int s = 0; s < 9; ++s) {
    const auto room = static_cast<std::int32_t>(random() % 71);
    const std::int32_t depth = 1 + static_cast<std::int32_t>(random() % kMaxPathLength);
    batch.add_sequence(1 + static_cast<std::int32_t>(random() % 500), 5, room, depth);
    if (random() % 3 > 0) {
      std::vector<PathNode> nodes;
      const auto most = static_cast<std::size_t>(random() % (static_cast<unsigned>(room) + 1));
      while (nodes.size() < most) {
        const auto parent = static_cast<std::int32_t>(random() % (nodes.size() + 1)) - 1;
        const std::int32_t at = parent < 0 ? 1 : nodes[static_cast<std::size_t>(parent)].depth + 1;
        if (at <= depth) {
          nodes.push_back(
              {.token = static_cast<std::int32_t>(random() % 100), .parent = parent, .depth = at});
        }
      }
      batch.add_tree(nodes);
    }
    if (random() % 2 == 0) continue;
    const TreePlace& at = batch.places.back();
    batch.resumes.push_back({.head = static_cast<std::int32_t>(batch.heads.size()),
                             .row = at.row,
                             .sampled = at.sampled,
                             .accept = at.accept,
                             .search = static_cast<std::int32_t>(batch.beams.size())});
    batch.heads.push_back({.length = 1 + static_cast<std::int32_t>(random() % 500),
                           .token = static_cast<std::int32_t>(random() % 100),
                           .most_tokens = static_cast<std::int32_t>(random() % 100)});
    batch.beams.push_back({});
  }
  return batch;
}

}  // namespace paceline::kernels
