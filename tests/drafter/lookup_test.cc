#include "drafter/lookup.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/core/error.h"
#include "tests/drafter/random_tree.h"

namespace paceline::drafter {
namespace {

TokenTree looked_up(const Tokens& tokens, const DraftShape& shape,
                    const LookupOptions& options = {}, std::int32_t max_depth = kMaxDraftDepth) {
  LookupDrafter lookup(options);
  const DraftRequest request{.tokens = tokens, .shape = shape, .max_depth = max_depth};
  std::vector<TokenTree> trees;
  lookup.draft({nullptr, {&request, 1}}, trees);
  EXPECT_LE(trees[0].size(), lookup.most_nodes(shape));
  return trees[0];
}

TEST(Lookup, DraftsWhatFollowedTheSameTokens) {
  EXPECT_EQ(leaves(looked_up({1, 2, 3, 4, 9, 1, 2}, {.width = 1, .depth = 3})), (Paths{{3, 4, 9}}));
}

TEST(Lookup, PrefersLongerMatchesThenLaterOnes) {
  // 5 6 is followed by 7, later by 8; 4 5 6 by 7.
  const Tokens tokens = {4, 5, 6, 7, 0, 5, 6, 8, 1, 4, 5, 6};
  EXPECT_EQ(leaves(looked_up(tokens, {.width = 1, .depth = 1})), (Paths{{7}}));
  EXPECT_EQ(leaves(looked_up(tokens, {.width = 2, .depth = 1})), (Paths{{7}, {8}}));
  EXPECT_EQ(leaves(looked_up(tokens, {.width = 1, .depth = 1}, {.max_match = 2})), (Paths{{8}}));
}

TEST(Lookup, EqualContinuationsCountOnce) {
  // 1 2 3 twice, 1 2 4 once, earliest.
  const Tokens tokens = {1, 2, 4, 0, 1, 2, 3, 0, 1, 2, 3, 0, 7, 1, 2};
  EXPECT_EQ(leaves(looked_up(tokens, {.width = 2, .depth = 1})), (Paths{{3}, {4}}));
}

TEST(Lookup, ATextThatRepeatsItselfGoesOnSo) {
  EXPECT_EQ(leaves(looked_up({8, 1, 2, 1, 2}, {.width = 1, .depth = 5})), (Paths{{1, 2, 1, 2, 1}}));
  EXPECT_EQ(leaves(looked_up({5, 5, 5}, {.width = 3, .depth = 4})), (Paths{{5, 5, 5, 5}}));
}

TEST(Lookup, DraftsNothingWithoutAMatch) {
  EXPECT_TRUE(looked_up({1, 2, 3}, {.width = 4, .depth = 4}).empty());
  EXPECT_TRUE(looked_up({1}, {.width = 4, .depth = 4}).empty());
  EXPECT_TRUE(looked_up({1, 2, 9, 2}, {.width = 4, .depth = 4}).empty());  // one token is no match
  EXPECT_TRUE(looked_up({1, 2, 1, 2}, {.width = 0, .depth = 4}).empty());
  EXPECT_TRUE(looked_up({1, 2, 1, 2}, {.width = 4, .depth = 4}, {}, 0).empty());
}

TEST(Lookup, KeepsToTheLimits) {
  const Tokens tokens = {1, 2, 1, 2, 1, 2};
  EXPECT_EQ(looked_up(tokens, {.width = 1, .depth = 4}, {}, 2).size(), 2);
  EXPECT_EQ(looked_up(tokens, {.width = 1, .depth = 4, .max_nodes = 3}).size(), 3);
  EXPECT_EQ(looked_up(tokens, {.width = 4, .depth = 4}, {.paths = 1, .depth = 9}).size(), 9);
  EXPECT_EQ(looked_up(tokens, {.width = 4, .depth = 4}, {.paths = 1, .depth = 9}, 5).size(), 5);
  EXPECT_THROW(LookupDrafter({.min_match = 0}), FatalError);
  EXPECT_THROW(looked_up({}, {.width = 1, .depth = 1}), FatalError);
  EXPECT_THROW(looked_up(tokens, {.width = 65, .depth = 1}), FatalError);
  EXPECT_THROW(looked_up(tokens, {.width = 1, .depth = 17}), FatalError);
}

TEST(Lookup, LongerMatchesScoreHigher) {
  const TokenTree tree = looked_up({1, 2, 3, 4, 9, 1, 2}, {.width = 1, .depth = 2});
  EXPECT_FLOAT_EQ(tree.nodes()[0].log_prob, std::log(2.0f / 4));
  EXPECT_FLOAT_EQ(tree.nodes()[1].log_prob, std::log(3.0f / 5));
  EXPECT_EQ(tree.nodes()[1].score, double{tree.nodes()[0].log_prob} + tree.nodes()[1].log_prob);
}

// The slow way: every place, its match measured and its continuation written out, sorted.
TEST(Lookup, RandomTextsGiveTheSlowWaysPath) {
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    Tokens tokens(1 + random() % 40);
    for (std::int32_t& token : tokens) token = static_cast<std::int32_t>(random() % 3);
    const LookupOptions options{.min_match = 1 + static_cast<std::int32_t>(random() % 3),
                                .max_match = 5};
    const auto size = static_cast<std::int32_t>(tokens.size());
    std::int32_t best = 0, best_match = 0;
    for (std::int32_t next = 1; next < size; ++next) {
      std::int32_t match = 0;
      for (std::int32_t length = 1; length <= std::min(5, next); ++length) {
        if (std::equal(tokens.begin() + next - length, tokens.begin() + next,
                       tokens.end() - length)) {
          match = length;
        }
      }
      if (match >= options.min_match && match >= best_match) {
        best = next;
        best_match = match;
      }
    }
    Tokens text = tokens;
    if (best_match > 0) {
      for (std::int32_t i = 0; i < 6; ++i) text.push_back(text[best + i]);
    }
    const TokenTree tree = looked_up(tokens, {.width = 1, .depth = 6}, options);
    EXPECT_EQ(tree.empty() ? Tokens() : path_to(tree, tree.size() - 1),
              Tokens(text.begin() + size, text.end()));
  }
}

}  // namespace
}  // namespace paceline::drafter
