#include "drafter/calibration.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace paceline::drafter {
namespace {

// The root's children 1 (claimed 0.9) and 2 (0.1), and 3 (0.5) below 1.
TokenTree small_tree() {
  TokenTree tree;
  const std::int32_t likely = tree.add(TreeNode::kRoot, 1, 0, std::log(0.9));
  tree.add(TreeNode::kRoot, 2, 0, std::log(0.1));
  tree.add(likely, 3, 0, std::log(0.9) + std::log(0.5));
  tree.set_source(0);
  return tree;
}

TEST(AcceptanceCalibration, BelievesEveryClaimAtFirst) {
  TokenTree tree = small_tree();
  const TokenTree claimed = tree;
  AcceptanceCalibration calibration;
  calibration.rate(tree, false);
  for (std::int32_t node = 0; node < tree.size(); ++node) {
    EXPECT_NEAR(tree.nodes()[node].score, claimed.nodes()[node].score, 1e-12);
  }
}

TEST(AcceptanceCalibration, LearnsOfThoseWhoseParentWasAccepted) {
  const TokenTree tree = small_tree();
  AcceptanceCalibration calibration;
  // 2 was chosen: 1 was tried and failed, 2 was right, and of 3 nothing is known.
  for (int i = 0; i < 94; ++i) {
    calibration.learn(tree, {.tokens = {2, 7}, .nodes = {1}}, false);
  }
  EXPECT_NEAR(calibration.chance(tree.nodes()[0], false), (0 + 6 * 0.9) / 100, 1e-12);
  EXPECT_NEAR(calibration.chance(tree.nodes()[1], false), (94 + 6 * 0.1) / 100, 1e-12);
  EXPECT_NEAR(calibration.chance(tree.nodes()[2], false), 0.5, 1e-12);
  // Sampled requests are counted apart.
  EXPECT_NEAR(calibration.chance(tree.nodes()[0], true), 0.9, 1e-12);
}

// The token that ended a request was chosen as any other.
TEST(AcceptanceCalibration, TheLastTokenCounts) {
  const TokenTree tree = small_tree();
  AcceptanceCalibration calibration;
  calibration.learn(tree, {.tokens = {1}, .nodes = {}}, false);
  EXPECT_GT(calibration.chance(tree.nodes()[0], false), 0.9);
  EXPECT_LT(calibration.chance(tree.nodes()[1], false), 0.1);
  EXPECT_NEAR(calibration.chance(tree.nodes()[2], false), 0.5, 1e-12);
}

// A drafter that claims 0.8 and is right three times of ten, drawn at random.
TEST(AcceptanceCalibration, ConvergesToWhatIsAccepted) {
  TokenTree tree;
  tree.add(TreeNode::kRoot, 5, 0, std::log(0.8));
  tree.set_source(1);
  AcceptanceCalibration calibration;
  std::mt19937 random(3);
  for (int i = 0; i < 20000; ++i) {
    const Accepted hit{.tokens = {5, 9}, .nodes = {0}};
    const Accepted miss{.tokens = {6}, .nodes = {}};
    calibration.learn(tree, random() % 10 < 3 ? hit : miss, false);
  }
  EXPECT_NEAR(calibration.chance(tree.nodes()[0], false), 0.3, 0.03);
  calibration.rate(tree, false);
  EXPECT_NEAR(tree.nodes()[0].score, std::log(0.3), 0.1);
}

// Two drafters of one scale each: the one whose claims come true gets the rows.
TEST(AcceptanceCalibration, PutsTwoDraftersOnOneScale) {
  TokenTree modest, loud;
  modest.add(TreeNode::kRoot, 1, 0, std::log(0.4));
  modest.set_source(0);
  loud.add(TreeNode::kRoot, 2, 0, std::log(0.9));
  loud.set_source(1);
  TokenTree tree = modest;
  tree.merge(loud);
  AcceptanceCalibration calibration;
  for (int i = 0; i < 50; ++i) {
    calibration.learn(tree, {.tokens = {1, 9}, .nodes = {0}}, false);
  }
  calibration.rate(tree, false);
  tree.prune(1);
  EXPECT_EQ(tree.nodes()[0].token, 1);
}

}  // namespace
}  // namespace paceline::drafter
