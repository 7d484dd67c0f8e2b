#include "runtime/drafting/draft_planner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace paceline::runtime {
namespace {

using drafter::DraftShape;
using drafter::TokenTree;
using drafter::TreeNode;

constexpr DraftShape kLargest{.width = 8, .depth = 6, .max_nodes = 32};

/// `fixed` seconds and `a_row` more for each row.
std::vector<StepCosts::Point> line(double fixed, double a_row) {
  return {{1, fixed + a_row}, {2, fixed + 2 * a_row}};
}

/// A drafter for which the i-th best of every level is right with chance `good` * 0.3^i.
TokenTree drafted(const DraftShape& shape, double good) {
  TokenTree tree;
  std::vector<std::int32_t> level{TreeNode::kRoot};
  for (std::int32_t depth = 1; depth <= shape.depth; ++depth) {
    std::vector<std::int32_t> next;
    for (const std::int32_t parent : level) {
      const double above =
          parent == TreeNode::kRoot ? 0 : tree.nodes()[static_cast<std::size_t>(parent)].score;
      for (std::int32_t i = 0; i < shape.width; ++i) {
        const double score = above + std::log(good * std::pow(0.3, i));
        next.push_back(tree.add(parent, 10 + i, 0, score));
      }
    }
    std::ranges::stable_sort(next, std::greater<>(), [&](std::int32_t node) {
      return tree.nodes()[static_cast<std::size_t>(node)].score;
    });
    next.resize(std::min(next.size(), static_cast<std::size_t>(shape.width)));
    level = next;
  }
  tree.set_source(0);
  tree.prune(shape.max_nodes);
  return tree;
}

/// Steps of `requests` requests; returns the shape and the trees of the last.
struct Settled {
  DraftShape shape;
  std::vector<TokenTree> trees;
};
Settled settle(DraftPlanner& planner, std::int32_t requests, double good, int steps = 200) {
  Settled settled;
  for (int step = 0; step < steps; ++step) {
    settled.shape = planner.shape(requests);
    settled.trees.assign(static_cast<std::size_t>(requests), drafted(settled.shape, good));
    planner.cut(settled.trees, 0);
  }
  return settled;
}

TEST(DraftPlanner, KeepsNodesThatAreWorthTheirRows) {
  // A row costs a tenth of a step: a node pays from a chance of about a tenth.
  DraftPlanner planner({.step = line(0.010, 0.001), .draft = {}}, kLargest);
  planner.shape(1);
  TokenTree tree;
  const std::int32_t likely = tree.add(TreeNode::kRoot, 1, 0, std::log(0.7));
  tree.add(TreeNode::kRoot, 2, 0, std::log(0.02));
  tree.add(likely, 3, 0, std::log(0.5));
  tree.add(likely, 4, 0, std::log(0.01));
  std::vector<TokenTree> trees{tree};
  planner.cut(trees, 0);
  ASSERT_EQ(trees[0].size(), 2);
  EXPECT_EQ(trees[0].nodes()[0].token, 1);
  EXPECT_EQ(trees[0].nodes()[1].token, 3);
}

TEST(DraftPlanner, RequestsCompeteForRows) {
  DraftPlanner planner({.step = line(0.010, 0.001), .draft = {}}, kLargest);
  planner.shape(2);
  TokenTree sure, vague;
  sure.add(TreeNode::kRoot, 1, 0, std::log(0.9));
  vague.add(TreeNode::kRoot, 1, 0, std::log(0.05));
  std::vector<TokenTree> trees{vague, sure};
  planner.cut(trees, 0);
  EXPECT_EQ(trees[0].size(), 0);
  EXPECT_EQ(trees[1].size(), 1);
}

TEST(DraftPlanner, AGoodDrafterDraftsDeepAndABadOneNotAtAll) {
  const StepCosts costs{.step = line(0.010, 0.0002), .draft = line(0.0003, 0.00002)};
  DraftPlanner good(costs, kLargest);
  const Settled deep = settle(good, 1, 0.85);
  EXPECT_GE(deep.shape.depth, 5);
  EXPECT_GE(deep.trees[0].size(), 6);
  DraftPlanner bad(costs, kLargest);
  const Settled none = settle(bad, 1, 0.01);
  EXPECT_EQ(none.shape.width, 0);
  EXPECT_EQ(none.trees[0].size(), 0);
}

TEST(DraftPlanner, ALargeBatchDraftsNothing) {
  // Rows cost as much as they bring: 64 requests fill the machine.
  const StepCosts costs{.step = line(0.0005, 0.001), .draft = line(0.0003, 0.00005)};
  DraftPlanner planner(costs, kLargest);
  EXPECT_EQ(settle(planner, 64, 0.5).shape.width, 0);
}

// What is drafted follows the drafter: it may get better, and worse.
TEST(DraftPlanner, ChangesItsMind) {
  const StepCosts costs{.step = line(0.010, 0.0002), .draft = line(0.0003, 0.00002)};
  DraftPlanner planner(costs, kLargest);
  EXPECT_EQ(settle(planner, 1, 0.01).shape.width, 0);
  EXPECT_GT(settle(planner, 1, 0.85, 2000).shape.width, 0);
  EXPECT_EQ(settle(planner, 1, 0.01, 2000).shape.width, 0);
}

TEST(DraftPlanner, DraftsThatCostNothingAreTakenWithoutBeams) {
  DraftPlanner planner({.step = line(0.010, 0.0002), .draft = line(0.1, 0.1)}, kLargest);
  Settled settled;
  for (int step = 0; step < 200; ++step) {
    settled.shape = planner.shape(1);
    TokenTree looked_up;
    looked_up.add(TreeNode::kRoot, 7, 0, std::log(0.8));
    looked_up.set_source(1);
    settled.trees = {looked_up};
    planner.cut(settled.trees, 0);
  }
  EXPECT_EQ(settled.shape.width, 0);
  EXPECT_GT(settled.shape.depth, 0);
  EXPECT_EQ(settled.trees[0].size(), 1);
}

// A depth costs a twelfth of a step: a search that is likely wrong already is not worth another.
TEST(DraftPlanner, SearchesEndWhereTheyAreUnlikelyToMatter) {
  const StepCosts costs{.step = line(0.010, 0.0002), .draft = line(0.0008, 0.00002)};
  DraftPlanner planner(costs, kLargest);
  const Settled settled = settle(planner, 1, 0.85);
  ASSERT_GT(settled.shape.width, 0);
  EXPECT_GT(settled.shape.least_chance, 0.1);
  EXPECT_LT(settled.shape.least_chance, 0.9);
  DraftPlanner cheap({.step = costs.step, .draft = line(0.00002, 0.000001)}, kLargest);
  EXPECT_LT(settle(cheap, 1, 0.85).shape.least_chance, 0.1);
}

TEST(StepCosts, LinesBetweenPoints) {
  const StepCosts costs{.step = {{1, 2.0}, {4, 5.0}, {8, 13.0}}, .draft = {}};
  EXPECT_DOUBLE_EQ(costs.step_seconds(1), 2);
  EXPECT_DOUBLE_EQ(costs.step_seconds(2), 3);
  EXPECT_DOUBLE_EQ(costs.step_seconds(6), 9);
  EXPECT_DOUBLE_EQ(costs.step_seconds(10), 17);
  EXPECT_EQ(costs.draft_seconds(3), 0);
}

}  // namespace
}  // namespace paceline::runtime
