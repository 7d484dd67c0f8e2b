#include "drafter/token_tree.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "kernels/core/error.h"
#include "tests/drafter/random_tree.h"

namespace paceline::drafter {
namespace {

std::vector<TokenTree::Step> path(const Tokens& tokens, float log_prob = -1) {
  std::vector<TokenTree::Step> steps;
  for (const std::int32_t token : tokens) {
    steps.push_back({token, log_prob, log_prob * static_cast<double>(steps.size() + 1)});
  }
  return steps;
}

/// The header's example: a b c, a d e, a b f with a = 1, ... f = 6.
TokenTree example() {
  TokenTree tree;
  tree.merge(path({1, 2, 3}));
  tree.merge(path({1, 4, 5}));
  tree.merge(path({1, 2, 6}));
  tree.count_rows(3 * 4);
  return tree;
}

TEST(TokenTree, MergesEqualBeginnings) {
  const TokenTree tree = example();
  Tokens tokens, parents, depths;
  for (const TreeNode& node : tree.nodes()) {
    tokens.push_back(node.token);
    parents.push_back(node.parent);
    depths.push_back(node.depth);
  }
  EXPECT_EQ(tokens, (Tokens{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(parents, (Tokens{-1, 0, 1, 0, 3, 1}));
  EXPECT_EQ(depths, (Tokens{1, 2, 3, 2, 3, 3}));
  EXPECT_EQ(tree.unmerged_rows, 12);
  EXPECT_EQ(tree.saved_rows, 5);  // 6 nodes and the root are left
}

TEST(TokenTree, ListsAncestors) {
  const AncestorLists lists = ancestor_lists(example());
  EXPECT_EQ(lists.first, (Tokens{0, 1, 3, 6, 8, 11}));
  EXPECT_EQ(lists.nodes, (Tokens{0, 0, 1, 0, 1, 2, 0, 3, 0, 3, 4, 0, 1, 5}));
}

TEST(TokenTree, AMergedNodeKeepsTheLargerScore) {
  TokenTree tree = example();
  tree.merge(path({1, 2, 7}, -0.5f));
  EXPECT_EQ(tree.nodes()[0].score, -0.5);
  EXPECT_EQ(tree.nodes()[0].log_prob, -1);
  EXPECT_EQ(tree.nodes()[1].score, -1);
  EXPECT_EQ(tree.nodes()[2].score, -3);
  EXPECT_EQ(tree.nodes()[6], (TreeNode{7, 1, 3, -0.5f, -1.5}));
  tree.merge(path({1, 2, 7}, -2));
  EXPECT_EQ(tree.nodes()[6].score, -1.5);
}

TEST(TokenTree, MergesWholeTrees) {
  TokenTree tree = example(), other;
  other.merge(path({1, 4, 9}));
  other.merge(path({8}));
  other.count_rows(4 + 2);
  tree.merge(other);
  EXPECT_EQ(tree.size(), 8);
  EXPECT_EQ(path_to(tree, 6), (Tokens{1, 4, 9}));
  EXPECT_EQ(path_to(tree, 7), (Tokens{8}));
  EXPECT_EQ(tree.unmerged_rows, 18);
  EXPECT_EQ(tree.saved_rows, 9);
}

TEST(TokenTree, PrunesToTheMostProbable) {
  TokenTree tree = example();
  tree.prune(4);  // scores -1 -2 -3 -2 -3 -3: of the equal ones the first stays
  EXPECT_EQ(tree.size(), 4);
  EXPECT_EQ(path_to(tree, 2), (Tokens{1, 2, 3}));
  EXPECT_EQ(path_to(tree, 3), (Tokens{1, 4}));
  tree.prune(10);
  EXPECT_EQ(tree.size(), 4);
  tree.prune(0);
  EXPECT_TRUE(tree.empty());
  EXPECT_EQ(tree.saved_rows, 5);  // what merging saved, not what was cut
}

TEST(TokenTree, RefusesAParentThatIsNotThere) {
  TokenTree tree;
  EXPECT_THROW(tree.add(0, 1, 0, 0), FatalError);
  EXPECT_THROW(tree.add(-2, 1, 0, 0), FatalError);
}

// The slow way: sort all, take the first; every one's parent is among them.
TEST(TokenTree, RandomTreesPrunedAsBySorting) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    const TokenTree whole = random_tree(random, 1 + static_cast<int>(random() % 40), 3);
    std::vector<std::pair<double, std::int32_t>> order;
    for (std::int32_t node = 0; node < whole.size(); ++node) {
      order.emplace_back(-whole.nodes()[node].score, node);
    }
    std::sort(order.begin(), order.end());
    const auto most = static_cast<std::int32_t>(random() % 45);
    std::map<std::int32_t, Tokens> expected;  // by index, so in order
    for (std::int32_t i = 0; i < std::min(most, whole.size()); ++i) {
      expected[order[i].second] = path_to(whole, order[i].second);
    }
    TokenTree tree = whole;
    tree.prune(most);
    ASSERT_EQ(static_cast<std::size_t>(tree.size()), expected.size());
    std::int32_t node = 0;
    for (const auto& [old, tokens] : expected) {
      EXPECT_EQ(path_to(tree, node), tokens);
      EXPECT_EQ(tree.nodes()[node].score, whole.nodes()[old].score);
      ++node;
    }
  }
}

TEST(TokenTree, AncestorsOfRandomTreesAreTheParentsFollowed) {
  std::mt19937 random(2);
  for (int round = 0; round < 200; ++round) {
    const TokenTree tree = random_tree(random, static_cast<int>(random() % 50), 4);
    const AncestorLists lists = ancestor_lists(tree);
    ASSERT_EQ(lists.first.size(), static_cast<std::size_t>(tree.size()));
    std::size_t total = 0;
    for (std::int32_t node = 0; node < tree.size(); ++node) {
      const std::int32_t depth = tree.nodes()[node].depth;
      std::int32_t at = node;
      for (std::int32_t i = depth; i-- > 0; at = tree.nodes()[at].parent) {
        ASSERT_EQ(lists.nodes[lists.first[node] + i], at);
      }
      EXPECT_EQ(at, TreeNode::kRoot);
      total += static_cast<std::size_t>(depth);
    }
    EXPECT_EQ(lists.nodes.size(), total);
  }
}

TEST(TokenTree, MergingRandomTreesGivesTheUnionOfTheirPaths) {
  std::mt19937 random(3);
  for (int round = 0; round < 100; ++round) {
    TokenTree tree = random_tree(random, static_cast<int>(random() % 20), 3);
    const TokenTree other = random_tree(random, static_cast<int>(random() % 20), 3);
    std::map<Tokens, double> expected;
    for (const TokenTree* part : std::initializer_list<const TokenTree*>{&tree, &other}) {
      for (std::int32_t node = 0; node < part->size(); ++node) {
        const auto at = expected.emplace(path_to(*part, node), part->nodes()[node].score).first;
        at->second = std::max(at->second, part->nodes()[node].score);
      }
    }
    tree.merge(other);
    std::map<Tokens, double> got;
    for (std::int32_t node = 0; node < tree.size(); ++node) {
      EXPECT_TRUE(got.emplace(path_to(tree, node), tree.nodes()[node].score).second);
    }
    EXPECT_EQ(got, expected);
  }
}

}  // namespace
}  // namespace paceline::drafter
