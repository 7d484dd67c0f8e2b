#include "drafter/acceptance.h"

#include <gtest/gtest.h>

#include <set>

#include "kernels/core/error.h"
#include "tests/drafter/random_tree.h"

namespace paceline::drafter {
namespace {

TokenTree example() {
  TokenTree tree;  // a b c, a d e, a b f
  const std::int32_t a = tree.add(TreeNode::kRoot, 1, 0, 0);
  const std::int32_t b = tree.add(a, 2, 0, 0);
  tree.add(b, 3, 0, 0);
  tree.add(tree.add(a, 4, 0, 0), 5, 0, 0);
  tree.add(b, 6, 0, 0);
  return tree;
}

constexpr auto never = [](std::int32_t) { return false; };

TEST(Accept, FollowsTheChosenTokens) {
  const Accepted accepted = accept(example(), Tokens{1, 2, 6, 9, 9, 9, 7}, never);
  EXPECT_EQ(accepted.tokens, (Tokens{1, 2, 6, 7}));
  EXPECT_EQ(accepted.nodes, (Tokens{0, 1, 5}));
  EXPECT_EQ(accepted.last_row(), 6);
  EXPECT_FALSE(accepted.ended);
}

TEST(Accept, AWrongDraftStillGivesOneToken) {
  const Accepted accepted = accept(example(), Tokens{4, 2, 6, 9, 9, 9, 7}, never);
  EXPECT_EQ(accepted.tokens, (Tokens{4}));
  EXPECT_TRUE(accepted.nodes.empty());
  EXPECT_EQ(accepted.last_row(), 0);
}

TEST(Accept, AnEmptyTreeIsPlainDecoding) {
  const Accepted accepted = accept(TokenTree(), Tokens{4}, never);
  EXPECT_EQ(accepted.tokens, (Tokens{4}));
  EXPECT_EQ(accepted.last_row(), 0);
}

TEST(Accept, StopsWherePlainDecodingWould) {
  const auto is_six = [](std::int32_t token) { return token == 6; };
  const Accepted accepted = accept(example(), Tokens{1, 2, 6, 9, 9, 9, 7}, is_six);
  EXPECT_EQ(accepted.tokens, (Tokens{1, 2, 6}));
  EXPECT_EQ(accepted.nodes, (Tokens{0, 1}));
  EXPECT_TRUE(accepted.ended);
  // After two tokens, whatever they are.
  int left = 2;
  const auto length = [&](std::int32_t) { return --left == 0; };
  EXPECT_EQ(accept(example(), Tokens{1, 2, 6, 9, 9, 9, 7}, length).tokens, (Tokens{1, 2}));
}

TEST(Accept, ATokenForEveryRow) {
  EXPECT_THROW(accept(example(), Tokens{1, 2, 3}, never), FatalError);
}

// A base model that chooses by a hash of what it has seen; decoded one token at a time, for as long
// as the tree has the path.
TEST(Accept, RandomTreesGiveWhatPlainDecodingGives) {
  std::mt19937 random(4);
  std::size_t longest = 0;
  for (int round = 0; round < 1000; ++round) {
    const TokenTree tree = random_tree(random, static_cast<int>(random() % 60), 2);
    const std::uint32_t seed = static_cast<std::uint32_t>(random());
    const auto next = [&](const Tokens& path) {
      std::uint32_t hash = seed;
      for (const std::int32_t token : path)
        hash = (hash ^ static_cast<std::uint32_t>(token)) * 48271u + 11u;
      return static_cast<std::int32_t>(hash >> 13) % 3;
    };
    const auto ends = [&](std::int32_t token) { return token == 2; };
    Tokens chosen = {next({})};
    std::set<Tokens> paths = {{}};
    for (std::int32_t node = 0; node < tree.size(); ++node) {
      const Tokens path = path_to(tree, node);
      paths.insert(path);
      chosen.push_back(next(path));
    }
    Tokens plain;
    do {
      plain.push_back(next(plain));
    } while (!ends(plain.back()) && paths.contains(plain));

    const Accepted accepted = accept(tree, chosen, ends);
    EXPECT_EQ(accepted.tokens, plain);
    EXPECT_EQ(accepted.ended, plain.back() == 2);
    ASSERT_EQ(accepted.nodes.size() + 1, plain.size());
    if (!accepted.nodes.empty()) {
      EXPECT_EQ(path_to(tree, accepted.nodes.back()), Tokens(plain.begin(), plain.end() - 1));
    }
    longest = std::max(longest, plain.size());
  }
  EXPECT_GT(longest, 4u);
}

}  // namespace
}  // namespace paceline::drafter
