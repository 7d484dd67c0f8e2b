#include "parallel/shards.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kernels/core/error.h"

namespace paceline::parallel {
namespace {

using ::testing::ElementsAre;

// sum_partials and the end of linear in plain words: push, then merge the two topmost.
std::vector<float> run_merges(const std::vector<float>& values, const std::vector<int>& merges) {
  std::vector<float> stack;
  for (std::size_t i = 0; i < values.size(); ++i) {
    stack.push_back(values[i]);
    for (int m = 0; m < merges[i]; ++m) {
      const float top = stack.back();
      stack.pop_back();
      stack.back() = stack.back() + top;
    }
  }
  return stack;
}

std::vector<int> merges_of(const Reduction& reduction) {
  std::vector<int> merges;
  for (const Reduction::Segment& segment : reduction.segments) merges.push_back(segment.merges);
  return merges;
}

TEST(DealTest, GivesTheFirstShardsOneMore) {
  EXPECT_THAT(deal(9, 1, 8),
              ElementsAre(IndexRange{0, 2}, IndexRange{2, 3}, IndexRange{3, 4}, IndexRange{4, 5},
                          IndexRange{5, 6}, IndexRange{6, 7}, IndexRange{7, 8}, IndexRange{8, 9}));
}

TEST(DealTest, ClipsTheLastAtomAndLeavesShardsEmpty) {
  EXPECT_THAT(deal(40, 16, 4), ElementsAre(IndexRange{0, 16}, IndexRange{16, 32},
                                           IndexRange{32, 40}, IndexRange{40, 40}));
  EXPECT_THAT(deal(0, 16, 2), ElementsAre(IndexRange{0, 0}, IndexRange{0, 0}));
}

TEST(DealTest, CoversEverythingOnceInWholeAtoms) {
  for (int shards = 1; shards <= 16; ++shards) {
    for (int atom : {1, 3, 16}) {
      for (std::int64_t units = 0; units < 70; ++units) {
        std::int64_t next = 0;
        for (const IndexRange& range : deal(units, atom, shards)) {
          EXPECT_EQ(range.begin, next);
          EXPECT_TRUE(range.begin % atom == 0 || range.begin == units);
          next = range.end;
        }
        EXPECT_EQ(next, units);
      }
    }
  }
}

TEST(RankShardsTest, CutsTheShardsIntoContiguousRuns) {
  EXPECT_EQ(rank_shards(8, 3, 0), (IndexRange{0, 2}));
  EXPECT_EQ(rank_shards(8, 3, 1), (IndexRange{2, 5}));
  EXPECT_EQ(rank_shards(8, 3, 2), (IndexRange{5, 8}));
  EXPECT_THROW(rank_shards(8, 9, 0), FatalError);
  EXPECT_THROW(rank_shards(8, 2, 2), FatalError);
}

TEST(RankUnitsTest, JoinsTheShardsOfARank) {
  const auto heads = deal(9, 1, 8);
  EXPECT_EQ(rank_units(heads, rank_shards(8, 2, 0)), (IndexRange{0, 5}));
  EXPECT_EQ(rank_units(heads, rank_shards(8, 2, 1)), (IndexRange{5, 9}));
  // The second rank of four has two heads of 64 columns.
  EXPECT_THAT(local_ranges(heads, {2, 4}, 64), ElementsAre(IndexRange{0, 64}, IndexRange{64, 128}));
}

TEST(KvHeadsTest, ARangeOfQueryHeadsNeedsTheHeadsThatItsGroupsShare) {
  EXPECT_EQ(kv_heads_for({0, 2}, 9, 3), (IndexRange{0, 1}));
  EXPECT_EQ(kv_heads_for({2, 4}, 9, 3), (IndexRange{0, 2}));
  EXPECT_EQ(kv_heads_for({5, 9}, 9, 3), (IndexRange{1, 3}));
  EXPECT_EQ(kv_heads_for({4, 8}, 8, 1), (IndexRange{0, 1}));
  EXPECT_EQ(kv_heads_for({4, 4}, 8, 8).size(), 0);
  EXPECT_THROW(kv_heads_for({0, 1}, 9, 2), FatalError);
}

TEST(ReductionTest, EightShardsOnThreeRanksAsInTheHeader) {
  const std::vector<IndexRange> two{{0, 4}, {4, 8}};
  const std::vector<IndexRange> three{{0, 4}, {4, 8}, {8, 12}};
  EXPECT_THAT(merges_of(local_reduction(two, 0, 8)), ElementsAre(0, 1));
  EXPECT_THAT(merges_of(local_reduction(three, 2, 8)), ElementsAre(0, 1, 0));
  EXPECT_THAT(merges_of(local_reduction(three, 5, 8)), ElementsAre(0, 0, 1));
  EXPECT_THAT(subtree_counts(8, 3), ElementsAre(1, 2, 2));
  EXPECT_THAT(final_merges(8, 3), ElementsAre(0, 1, 0, 1, 2));
  EXPECT_EQ(local_reduction(three, 5, 8).segments[1].cols, (IndexRange{4, 8}));
}

TEST(ReductionTest, OneRankAddsTheWholeTree) {
  const auto dealt = deal(7, 1, 7);
  EXPECT_THAT(merges_of(local_reduction(dealt, 0, 7)), ElementsAre(0, 1, 0, 2, 0, 1, 2));
  EXPECT_THAT(final_merges(7, 1), ElementsAre(0));
}

// Partial sums of very different sizes, so that any other order of addition shows.
std::vector<float> awkward_values(int count, std::mt19937& random) {
  std::vector<float> values;
  for (int i = 0; i < count; ++i) {
    const auto bits = static_cast<std::int32_t>(random());
    values.push_back(std::ldexp(static_cast<float>(bits), static_cast<int>(random() % 9) - 35));
  }
  return values;
}

TEST(ReductionTest, EveryNumberOfRanksAddsInTheSameOrder) {
  std::mt19937 random(7);
  for (int v = 1; v <= 16; ++v) {
    const auto dealt = deal(v, 1, v);
    for (int trial = 0; trial < 200; ++trial) {
      const std::vector<float> values = awkward_values(v, random);
      const float expected = run_merges(values, merges_of(local_reduction(dealt, 0, v))).at(0);
      for (int tp = 1; tp <= v; ++tp) {
        std::vector<float> exchanged;
        for (int rank = 0; rank < tp; ++rank) {
          const IndexRange shards = rank_shards(v, tp, rank);
          const Reduction local =
              local_reduction(local_ranges(dealt, shards), static_cast<int>(shards.begin), v);
          const auto sums = run_merges({values.begin() + shards.begin, values.begin() + shards.end},
                                       merges_of(local));
          EXPECT_EQ(static_cast<int>(sums.size()), local.outputs());
          EXPECT_EQ(local.outputs(), subtree_counts(v, tp)[rank]);
          exchanged.insert(exchanged.end(), sums.begin(), sums.end());
        }
        const auto total = run_merges(exchanged, final_merges(v, tp));
        ASSERT_EQ(total.size(), 1u);
        EXPECT_EQ(total[0], expected) << "V = " << v << ", tp = " << tp;
      }
    }
  }
}

TEST(ReductionTest, TheOrderMatters) {  // or else the test above could not fail
  std::mt19937 random(7);
  const std::vector<float> values = awkward_values(8, random);
  float chain = 0;
  for (float value : values) chain += value;
  EXPECT_NE(run_merges(values, merges_of(local_reduction(deal(8, 1, 8), 0, 8))).at(0), chain);
}

}  // namespace
}  // namespace paceline::parallel
