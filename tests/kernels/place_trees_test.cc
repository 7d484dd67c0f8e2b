#include <gtest/gtest.h>

#include "kernels/core/error.h"
#include "kernels/cpu/ops.h"
#include "kernels/reference/ops.h"
#include "tests/kernels/place_cases.h"

namespace paceline::kernels {
namespace {

using Ids = std::vector<std::int32_t>;

void place_all(Placing& batch) {
  reference::place_trees({.places = batch.places.data(),
                          .trees = batch.trees.data(),
                          .nodes = batch.nodes.data(),
                          .most_nodes = batch.most_nodes,
                          .batch = batch.arrays(),
                          .count = std::ssize(batch.places)});
}

// 9 known tokens, the last of them 50, and the tree 1(2, 3) in room for four nodes.
TEST(PlaceTrees, LaysNodesOutBehindTheirRoot) {
  Placing batch{.most_nodes = 3};
  batch.add_sequence(9, 50, 4, 2);
  batch.add_tree({{.token = 1, .parent = -1, .depth = 1},
                  {.token = 2, .parent = 0, .depth = 2},
                  {.token = 3, .parent = 0, .depth = 2}});
  place_all(batch);
  EXPECT_EQ(batch.tokens, (Ids{50, 1, 2, 3, 50}));
  EXPECT_EQ(batch.positions, (Ids{8, 9, 10, 10, 8}));
  Ids slots, bases;
  for (const RowPlace& row : batch.rows) {
    slots.push_back(row.slot);
    bases.push_back(row.base);
  }
  EXPECT_EQ(slots, (Ids{8, 9, 10, 11, 8}));
  EXPECT_EQ(bases, (Ids{9, 9, 9, 9, 9}));
  EXPECT_EQ(batch.ancestors[batch.rows[1].first_ancestor], 9);
  for (const int node : {2, 3}) {
    const auto* ancestors = &batch.ancestors[batch.rows[node].first_ancestor];
    EXPECT_EQ(Ids(ancestors, ancestors + 2), (Ids{9, 8 + node}));
  }
  EXPECT_EQ(Ids(batch.tree_tokens.begin() + 1, batch.tree_tokens.end()), (Ids{1, 2, 3, -1}));
  EXPECT_EQ(Ids(batch.tree_parents.begin() + 1, batch.tree_parents.end()), (Ids{-1, 0, 0, -1}));
  EXPECT_EQ(batch.sampling[1].index, 10u);
  EXPECT_EQ(batch.sampling[3].index, 11u);
  EXPECT_EQ(batch.sampling[4].index, 9u);
  EXPECT_EQ(batch.accept[0].nodes, 3);
}

// The step before has left the sequence with 12 tokens, the last of them 70, and 5 to go.
TEST(ResumeSequences, TakesUpWhereTheStepBeforeEnded) {
  Placing batch;
  batch.add_sequence(9, 50, 0, 0);
  batch.beams = {{}, {.root = 50, .depth = 3}};
  const ResumePlan plan{.head = 1, .search = 1};
  const std::vector<SequenceHead> heads = {{}, {.length = 12, .token = 70, .most_tokens = 5}};
  reference::resume_sequences({.plans = &plan,
                               .heads = heads.data(),
                               .batch = batch.arrays(),
                               .beams = batch.beams.data(),
                               .count = 1});
  EXPECT_EQ(batch.tokens[0], 70);
  EXPECT_EQ(batch.positions[0], 11);
  EXPECT_EQ(batch.rows[0].slot, 11);
  EXPECT_EQ(batch.rows[0].base, 12);
  EXPECT_EQ(batch.sampling[0].index, 12u);
  EXPECT_EQ(batch.accept[0].first_slot, 12);
  EXPECT_EQ(batch.accept[0].most_tokens, 5);
  EXPECT_EQ(batch.beams[1].root, 70);
  EXPECT_EQ(batch.beams[1].sampling.index, 12u);
  EXPECT_EQ(batch.beams[1].depth, 3);
}

TEST(PlaceTrees, EveryBackendDoesTheSame) {
  for (std::uint32_t seed = 0; seed < 10; ++seed) {
    const Placing batch = random_placing(seed);
    EXPECT_EQ(place(batch, cpu::resume_sequences, cpu::place_trees),
              place(batch, reference::resume_sequences, reference::place_trees));
  }
}

TEST(PlaceTrees, RefusesTreesThatDoNotFit) {
  Placing large{.most_nodes = 2};
  large.add_sequence(9, 50, 1, 1);
  large.add_tree({{.token = 1, .depth = 1}, {.token = 2, .depth = 1}});
  EXPECT_THROW(place_all(large), FatalError);
  Placing deep{.most_nodes = 2};
  deep.add_sequence(9, 50, 2, 1);
  deep.add_tree({{.token = 1, .depth = 1}, {.token = 2, .parent = 0, .depth = 2}});
  EXPECT_THROW(place_all(deep), FatalError);
}

}  // namespace
}  // namespace paceline::kernels
