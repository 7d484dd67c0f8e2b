#include "kernels/core/beams.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/core/error.h"
#include "kernels/cpu/ops.h"
#include "kernels/reference/ops.h"
#include "tests/kernels/beam_cases.h"

namespace paceline::kernels {
namespace {

using Ids = std::vector<std::int32_t>;

constexpr BeamOps kReference = {reference::place_beams, reference::extend_beams,
                                reference::merge_beams};

ThreadPool& three_threads() {
  static ThreadPool pool(3);
  return pool;
}
constexpr BeamOps kCpu = {
    cpu::place_beams,
    [](const ExtendBeamsParams& params) { cpu::extend_beams(params, three_threads()); },
    [](const MergeBeamsParams& params) { cpu::merge_beams(params, three_threads()); }};

// Two beams, two levels, ids that stand for tokens ten times as large. After the root 1 is likelier
// than 2, but what follows 2 is certain; of what follows 1 the lower of two equals goes on.
TEST(Beams, AWorkedExample) {
  Searches searches({{.root = 5, .hidden_row = 3, .width = 2, .depth = 2}}, 2, 4);
  Ids token_of;
  for (std::int32_t id = 0; id < 10; ++id) token_of.push_back(10 * id);

  kReference.place(searches.place(true));
  EXPECT_EQ(searches.num_rows, 1);
  EXPECT_EQ(searches.tokens, (Ids{5, 0}));
  EXPECT_EQ(searches.hidden_rows, (Ids{3, 0}));
  kReference.extend(searches.extend({{1, 2, 3}, {3}, {-0.5f, -1.0f, -2.0f}, 3}, token_of.data()));
  EXPECT_EQ(searches.states[0].end, BeamEnd::kNone);

  kReference.place(searches.place(false));
  EXPECT_EQ(searches.num_rows, 2);
  EXPECT_EQ(searches.tokens, (Ids{10, 20}));
  EXPECT_EQ(searches.parent_rows, (Ids{0, 0}));
  EXPECT_EQ(searches.hidden_rows, (Ids{3, 3}));
  const Candidates second{{8, 7, 0, 5, 0, 0}, {2, 1}, {-0.6f, -0.6f, 0, 0, 0, 0}, 3};
  kReference.extend(searches.extend(second, token_of.data()));
  EXPECT_EQ(searches.states[0].end, BeamEnd::kDone);

  kReference.merge(searches.merge());
  const PathTree& tree = searches.trees[0];
  ASSERT_EQ(tree.nodes, 4);
  Ids tokens, parents, depths;
  for (const PathNode& node : searches.nodes) {
    tokens.push_back(node.token);
    parents.push_back(node.parent);
    depths.push_back(node.depth);
  }
  EXPECT_EQ(tokens, (Ids{20, 50, 10, 70}));
  EXPECT_EQ(parents, (Ids{-1, 0, -1, 2}));
  EXPECT_EQ(depths, (Ids{1, 2, 1, 2}));
  EXPECT_EQ(searches.nodes[3].score, -0.5 + double{-0.6f});
  EXPECT_EQ(tree.unmerged_rows, 6);  // the root and two tokens, twice
  EXPECT_EQ(tree.saved_rows, 1);     // the root
}

// The third search of four has ended: the others' rows close up.
TEST(Beams, RowsOfSearchesThatEndedAreLeftOut) {
  Searches searches(std::vector<BeamPlan>(4, {.width = 2, .depth = 3}), 8, 6);
  for (std::int32_t s = 0; s < 4; ++s) {
    searches.plans[s].root = 20 + s;
    searches.plans[s].hidden_row = s;
  }
  kReference.place(searches.place(true));
  EXPECT_EQ(searches.tokens, (Ids{20, 21, 22, 23, 0, 0, 0, 0}));
  const std::vector<float> log_probs(8, -1.0f);
  kReference.extend(
      searches.extend({{1, 2, 3, 4, 5, 6, 7, 8}, {2, 1, 0, 2}, log_probs, 2}, nullptr));
  EXPECT_EQ(searches.states[2].end, BeamEnd::kNotFinite);
  kReference.place(searches.place(false));
  EXPECT_EQ(searches.num_rows, 5);
  EXPECT_EQ(searches.tokens, (Ids{1, 2, 3, 7, 8, 0, 0, 0}));
  EXPECT_EQ(searches.parent_rows, (Ids{0, 0, 1, 3, 3, 0, 0, 0}));
  EXPECT_EQ(searches.hidden_rows, (Ids{0, 0, 1, 3, 3, 0, 0, 0}));
}

TEST(Beams, EveryBackendFindsTheSame) {
  for (std::uint32_t seed = 0; seed < 24; ++seed) {
    const std::int32_t width = seed % 4 == 0 ? kMaxBeams : 6;
    EXPECT_EQ(all_results(kCpu, seed, width, 50), all_results(kReference, seed, width, 50)) << seed;
  }
}

TEST(Beams, RefusesMoreRowsThanThereIsRoomFor) {
  Searches searches(std::vector<BeamPlan>(3, {.width = 2, .depth = 3}), 2, 6);
  EXPECT_THROW(kReference.place(searches.place(true)), FatalError);
  EXPECT_THROW(kCpu.place(searches.place(true)), FatalError);
}

}  // namespace
}  // namespace paceline::kernels
