#include "drafter/merged_drafter.h"

#include <gtest/gtest.h>

#include <random>

#include "drafter/lookup.h"
#include "tests/drafter/random_tree.h"

namespace paceline::drafter {
namespace {

/// A drafter that always says the same.
class FixedDrafter final : public Drafter {
 public:
  explicit FixedDrafter(TokenTree tree) : tree_(std::move(tree)) {}
  void draft(const DraftBatch& batch, std::vector<TokenTree>& trees) override {
    trees.assign(batch.requests.size(), tree_);
    EXPECT_EQ(batch.requests[0].shape.max_nodes, 0);
    if (batch.requests[0].shape.width == 0) trees[0].clear();
    stats_.rows += 5;
  }
  std::int32_t most_nodes(const DraftShape&) const override { return tree_.size(); }
  const DraftStats& stats() const override { return stats_; }

 private:
  TokenTree tree_;
  DraftStats stats_;
};

TEST(MergedDrafter, AddsLookupsPathsAndKeepsTheBest) {
  TokenTree tree;
  tree.add(tree.add(TreeNode::kRoot, 3, -0.1f, -0.1), 7, -3, -3.1);
  tree.count_rows(3);
  FixedDrafter model(tree);
  LookupDrafter lookup;
  MergedDrafter merged({&model, &lookup});
  const Tokens tokens = {1, 2, 3, 4, 9, 1, 2};
  const DraftRequest requests[] = {
      {.tokens = tokens, .shape = {.width = 1, .depth = 2}},
      {.tokens = tokens, .shape = {.width = 1, .depth = 2, .max_nodes = 2}}};
  std::vector<TokenTree> trees;
  merged.draft({nullptr, requests}, trees);
  EXPECT_EQ(leaves(trees[0]), (Paths{{3, 7}, {3, 4}}));
  EXPECT_EQ(trees[0].unmerged_rows, 6);
  EXPECT_EQ(trees[0].saved_rows, 2);  // a root and the 3
  EXPECT_EQ(leaves(trees[1]), (Paths{{3, 4}}));
  EXPECT_EQ(merged.most_nodes(requests[0].shape), 4);
  EXPECT_EQ(merged.most_nodes(requests[1].shape), 2);
  EXPECT_EQ(merged.stats().drafts, 2);
  EXPECT_EQ(merged.stats().nodes, 5);
  EXPECT_EQ(merged.stats().rows, 5);
}

// A match of two tokens claims (2 / 4): where that leaves too little to guess the head is spared.
TEST(MergedDrafter, DoesNotSearchForWhatALookupKnows) {
  TokenTree tree;
  tree.add(TreeNode::kRoot, 5, -0.1f, -0.1);
  FixedDrafter model(tree);
  LookupDrafter lookup;
  MergedDrafter merged({&model, &lookup});
  const Tokens tokens = {1, 2, 3, 4, 9, 1, 2};
  const auto drafted = [&](double least) {
    const DraftRequest request{.tokens = tokens,
                               .shape = {.width = 1, .depth = 1, .least_chance = least}};
    std::vector<TokenTree> trees;
    merged.draft({nullptr, std::span(&request, 1)}, trees);
    return leaves(trees[0]);
  };
  EXPECT_EQ(drafted(0), (Paths{{5}, {3}}));
  EXPECT_EQ(drafted(0.49), (Paths{{5}, {3}}));
  EXPECT_EQ(drafted(0.51), (Paths{{3}}));
}

}  // namespace
}  // namespace paceline::drafter
