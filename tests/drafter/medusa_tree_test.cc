#include "drafter/medusa_tree.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "kernels/core/sampling.h"
#include "tests/drafter/random_tree.h"

namespace paceline::drafter {
namespace {

using Depths = std::vector<std::vector<RankedToken>>;

/// Scores that fall by rank, many of them equal where they are coarse.
Depths random_depths(std::mt19937& random, bool coarse) {
  Depths depths(1 + random() % 5);
  for (auto& tokens : depths) {
    double score = 0;
    const auto count = random() % 12;  // a head without any token ends the tree
    for (std::uint32_t i = 0; i < count; ++i) {
      const double step = static_cast<double>(random() % 1000) / 500;
      score -= coarse ? std::floor(step) : step;
      tokens.push_back({static_cast<std::int32_t>(100 + i), static_cast<float>(score), score});
    }
  }
  return depths;
}

/// The slow way: of all nodes that could be added the best one, over and over.
TokenTree slow_tree(const Depths& depths, std::int32_t nodes) {
  TokenTree tree;
  while (tree.size() < nodes) {
    double best_score = -std::numeric_limits<double>::infinity();
    std::int32_t best_parent = 0;
    const RankedToken* best = nullptr;
    for (std::int32_t parent = -1; parent < tree.size(); ++parent) {
      const std::size_t depth = parent < 0 ? 0 : tree.nodes()[parent].depth;
      if (depth == depths.size()) continue;
      for (const RankedToken& token : depths[depth]) {
        if (tree.child(parent, token.token) != TreeNode::kRoot) continue;
        const double score = (parent < 0 ? 0 : tree.nodes()[parent].score) + token.score;
        if (score <= best_score) continue;  // the earlier parent and the better rank come first
        best_score = score;
        best_parent = parent;
        best = &token;
      }
    }
    if (best == nullptr) break;
    tree.add(best_parent, best->token, best->log_prob, best_score);
  }
  return tree;
}

/// Rows of every path that no other one goes beyond, each with the root before it.
std::int64_t slow_rows(const TokenTree& tree) {
  std::int64_t rows = 0;
  for (std::int32_t node = 0; node < tree.size(); ++node) {
    bool leaf = true;
    for (const TreeNode& other : tree.nodes()) leaf = leaf && other.parent != node;
    if (leaf) rows += tree.nodes()[node].depth + 1;
  }
  return rows;
}

TEST(MedusaTree, TakesTheLikeliestPaths) {
  constexpr std::int32_t a = 1, b = 2, c = 3, d = 4;
  const Depths depths = {{{a, -1, -1}, {b, -3, -3}}, {{c, -1, -1}, {d, -2, -2}}};
  const TokenTree tree = most_probable_tree(depths, 4);
  EXPECT_EQ(tree.nodes(),
            (std::vector<TreeNode>{
                {a, -1, 1, -1, -1}, {c, 0, 2, -1, -2}, {b, -1, 1, -3, -3}, {d, 0, 2, -2, -3}}));
  // The paths a c, a d and b alone would be 3 + 3 + 2 rows; the tree is the root and four.
  EXPECT_EQ(tree.unmerged_rows, 8);
  EXPECT_EQ(tree.saved_rows, 3);
  EXPECT_EQ(most_probable_tree(depths, 100).size(), 2 + 2 * 2);
  EXPECT_TRUE(most_probable_tree({}, 4).empty());
}

TEST(MedusaTree, RandomHeadsGiveTheSlowWaysTree) {
  std::mt19937 random(3);
  for (int round = 0; round < 300; ++round) {
    const Depths depths = random_depths(random, round % 2 == 0);
    const auto nodes = static_cast<std::int32_t>(random() % 60);
    const TokenTree tree = most_probable_tree(depths, nodes);
    EXPECT_EQ(tree.nodes(), slow_tree(depths, nodes).nodes());
    EXPECT_EQ(tree.unmerged_rows, slow_rows(tree));
    EXPECT_EQ(tree.saved_rows, tree.empty() ? 0 : tree.unmerged_rows - tree.size() - 1);
  }
}

// A tree of n nodes is what pruning a larger one to n leaves: so merged trees can be pruned, too.
TEST(MedusaTree, IsWhatPruningLeaves) {
  std::mt19937 random(4);
  for (int round = 0; round < 50; ++round) {
    const Depths depths = random_depths(random, round % 2 == 0);
    TokenTree large = most_probable_tree(depths, 80);
    large.prune(20);
    EXPECT_EQ(large.nodes(), most_probable_tree(depths, 20).nodes());
  }
}

TEST(MedusaTree, FollowsTheChoices) {
  const Depths depths = {{{10, -1, -1}, {11, -2, -2}}, {{20, -1, -1}, {21, -3, -3}}};
  // A rank that a head does not have, a depth that there is none for, and what hangs on these fall
  // away.
  const std::vector<Tokens> choices = {{0}, {1}, {4}, {0, 1}, {1, 0}, {4, 0}, {0, 1, 0}};
  const TokenTree tree = chosen_tree(depths, choices);
  EXPECT_EQ(tree.nodes(),
            (std::vector<TreeNode>{
                {10, -1, 1, -1, -1}, {11, -1, 1, -2, -2}, {21, 0, 2, -3, -4}, {20, 1, 2, -1, -3}}));
  EXPECT_EQ(tree.unmerged_rows, 6);
  EXPECT_EQ(tree.saved_rows, 1);
}

TEST(RankedTokens, GoByTheScoresOfVerification) {
  const Tokens tokens = {7, 5, 9, 6};
  const std::vector<float> log_probs = {-0.5f, -1.5f, -1.5f,
                                        -std::numeric_limits<float>::infinity()};
  const auto plain = ranked_tokens({}, tokens, log_probs);
  ASSERT_EQ(plain.size(), 3u);  // what cannot come is no candidate
  EXPECT_EQ(plain[0].token, 7);
  EXPECT_EQ(plain[1].token, 5);  // a tie, to the lower token
  EXPECT_EQ(plain[2].token, 9);
  EXPECT_EQ(plain[2].score, double{-1.5f});

  const kernels::SamplingRow sampling{.temperature = 0.5f, .seed = 3, .index = 8};
  const auto noisy = ranked_tokens(sampling, tokens, log_probs);
  ASSERT_EQ(noisy.size(), 3u);
  EXPECT_EQ(noisy[0].score, 0);
  for (const RankedToken& one : noisy) {
    const double a = one.log_prob / 0.5 + kernels::sampling_noise(sampling, one.token);
    const double top = noisy[0].log_prob / 0.5 + kernels::sampling_noise(sampling, noisy[0].token);
    EXPECT_EQ(one.score, a - top);
    EXPECT_LE(one.score, 0);
  }
}

}  // namespace
}  // namespace paceline::drafter
