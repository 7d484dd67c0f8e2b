#include "runtime/bench/simulated_acceptance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "kernels/core/error.h"
#include "tests/drafter/slow_acceptance.h"

namespace paceline::runtime {
namespace {

using drafter::TokenTree;
using drafter::TreeNode;
using ::testing::ElementsAre;
using Ids = std::vector<std::int32_t>;

// The paths 11 12 13 and 21 22 23.
TokenTree two_paths() {
  TokenTree tree;
  for (const std::int32_t first : {11, 21}) {
    std::int32_t parent = TreeNode::kRoot;
    for (std::int32_t depth = 0; depth < 3; ++depth) parent = tree.add(parent, first + depth, 0, 0);
  }
  return tree;
}

Ids accepted_tokens(SimulatedAcceptance& simulated, const TokenTree& tree, Ids chosen) {
  simulated(tree, chosen);
  return drafter::slow_accept(tree, chosen, [](std::int32_t) { return false; }).tokens;
}

TEST(SimulatedAcceptance, AcceptsTheFirstPathAsFarAsTheAverageAsks) {
  SimulatedAcceptance simulated(2.5);
  const TokenTree tree = two_paths();
  const Ids chosen = {90, 91, 92, 93, 94, 95, 96};
  EXPECT_THAT(accepted_tokens(simulated, tree, chosen), ElementsAre(11, 91));
  EXPECT_THAT(accepted_tokens(simulated, tree, chosen), ElementsAre(11, 12, 92));
  EXPECT_THAT(accepted_tokens(simulated, tree, chosen), ElementsAre(11, 91));
  EXPECT_THAT(accepted_tokens(simulated, tree, chosen), ElementsAre(11, 12, 92));
}

TEST(SimulatedAcceptance, HoldsItsAverageOverManySteps) {
  SimulatedAcceptance simulated(3.3);
  std::size_t tokens = 0;
  for (int step = 0; step < 1000; ++step) {
    tokens += accepted_tokens(simulated, two_paths(), {9, 9, 9, 9, 9, 9, 9}).size();
  }
  EXPECT_NEAR(static_cast<double>(tokens), 3300, 1);
}

TEST(SimulatedAcceptance, MakesUpForTreesThatWereTooShallow) {
  SimulatedAcceptance simulated(3);
  TokenTree shallow;
  shallow.add(TreeNode::kRoot, 5, 0, 0);
  EXPECT_THAT(accepted_tokens(simulated, shallow, {9, 8}), ElementsAre(5, 8));
  EXPECT_THAT(accepted_tokens(simulated, two_paths(), {9, 9, 9, 7, 9, 9, 9}),
              ElementsAre(11, 12, 13, 7));
}

// The model's own choices would accept 21 22 23, and after 11 its 12.
TEST(SimulatedAcceptance, StopsWhereTheModelWouldGoOn) {
  SimulatedAcceptance simulated(2);
  const Ids tokens = accepted_tokens(simulated, two_paths(), {21, 12, 13, 9, 22, 23, 9});
  ASSERT_EQ(tokens.size(), 2u);
  EXPECT_EQ(tokens[0], 11);
  EXPECT_NE(tokens[1], 12);
  SimulatedAcceptance nothing(1);
  EXPECT_EQ(accepted_tokens(nothing, two_paths(), {21, 12, 13, 9, 22, 23, 9}).size(), 1u);
}

TEST(SimulatedAcceptance, LeavesAloneWhatHasNoTreeOrNoNumber) {
  SimulatedAcceptance simulated(3);
  EXPECT_THAT(accepted_tokens(simulated, {}, {42}), ElementsAre(42));
  Ids chosen = {9, 9, -1, 9, 9, 9, 9};
  simulated(two_paths(), chosen);
  EXPECT_THAT(chosen, ElementsAre(9, 9, -1, 9, 9, 9, 9));
  EXPECT_THROW(SimulatedAcceptance(0.5), FatalError);
}

}  // namespace
}  // namespace paceline::runtime
