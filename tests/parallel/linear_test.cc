#include "parallel/linear.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "kernels/core/error.h"
#include "tests/parallel/layer_stack.h"
#include "tests/parallel/rank_threads.h"

namespace paceline::parallel {
namespace {

using kernels::WeightFormat;

const std::vector<std::int32_t> kTokens = {0, 99, 17, 17, 64};

class LayersTest : public ::testing::TestWithParam<WeightFormat> {};

TEST_P(LayersTest, AnyNumberOfRanksGivesTheSameBits) {
  RankState state;
  state.set_crowded(true);
  for (const int virtual_shards : {8, 6, 5}) {
    const LayerStack stack{.virtual_shards = virtual_shards, .format = GetParam()};
    const std::vector<float> expected = stack.logits(*make_single(), kTokens);
    for (int tp = 2; tp <= virtual_shards; ++tp) {
      run_ranks(tp, kSharedChunk, state, [&](Communicator& group) {
        EXPECT_EQ(stack.logits(group, kTokens), expected)
            << "rank " << group.rank() << " of " << tp << ", V = " << virtual_shards;
        // One row alone: its logits are the same as in company.
        EXPECT_EQ(stack.logits(group, {17}),
                  std::vector<float>(expected.begin() + 200, expected.begin() + 300));
      });
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, LayersTest,
                         ::testing::Values(WeightFormat::kFp32, WeightFormat::kBf16,
                                           WeightFormat::kInt8Group, WeightFormat::kInt4Group),
                         [](const auto& test) {
                           return std::string(kernels::format_name(test.param));
                         });

TEST(LayersTest, TheVirtualShardsAreWhatTheBitsDependOn) {  // or else the test above proves little
  EXPECT_NE((LayerStack{.virtual_shards = 1}.logits(*make_single(), kTokens)),
            (LayerStack{.virtual_shards = 8}.logits(*make_single(), kTokens)));
}

TEST(LayersTest, MoreShardsThanColumnsStillWork) {
  const LayerStack stack{.hidden = 5, .heads = 3, .head_dim = 1, .vocab = 3, .virtual_shards = 8};
  RankState state;
  const std::vector<float> expected = stack.logits(*make_single(), {2, 0});
  run_ranks(8, kSharedChunk, state, [&](Communicator& group) {
    EXPECT_EQ(stack.logits(group, {2, 0}), expected);
  });
}

// What each rank finds in its part comes to the largest of all; a tie goes to the lower token,
// though another rank has it; ranks without any logits take no part.
TEST(LogitsTest, TheLargestComesFromTheParts) {
  const LayerStack stack;
  RankState state;
  state.set_crowded(true);
  const LayerStack::Output alone = stack.run(*make_single(), kTokens);
  const auto row = [&](std::size_t r) { return alone.logits.begin() + static_cast<int>(r) * 100; };
  for (std::size_t r = 0; r < kTokens.size(); ++r) {
    EXPECT_EQ(alone.largest[r], std::max_element(row(r), row(r) + 100) - row(r));
  }
  const float top = *std::max_element(row(0), row(0) + 100);
  for (const int tp : {1, 3, 8}) {
    run_ranks(tp, kSharedChunk, state, [&](Communicator& group) {
      EXPECT_EQ(stack.run(group, kTokens).largest, alone.largest);
      EXPECT_EQ(stack.run(group, kTokens, {{99, top + 1}}).largest[0], 99);
      EXPECT_EQ(stack.run(group, kTokens, {{99, top}}).largest[0],
                std::min<std::int64_t>(alone.largest[0], 99));
      EXPECT_EQ(stack.run(group, kTokens, {{0, top}}).largest[0], 0);
      const float nan = std::numeric_limits<float>::quiet_NaN();
      const auto poisoned = stack.run(group, kTokens, {{70, nan}}).largest;
      EXPECT_EQ(poisoned[0], -1);
      EXPECT_EQ(poisoned[1], alone.largest[1]);
    });
  }
}

TEST(EmbeddingTest, OneRankAndManyGiveTheTablesRow) {
  const LayerStack stack;
  const kernels::HostMatrix table = stack.random_matrix(100, 64, 1);
  const std::vector<float> values = kernels::to_fp32(table);
  RankState state;
  run_ranks(3, kSharedChunk, state, [&](Communicator& group) {
    const auto backend = kernels::make_reference_backend();
    ExchangeWorkspace exchange(*backend, group, 8);
    const IndexRange part = rank_units(vocabulary_shards(100, 8), rank_shards(8, 3, group.rank()));
    VocabParallelEmbedding embedding(
        exchange, backend->pack(kernels::take_rows(table, {&part, 1}), Reduction::whole(64)), 100);
    std::vector<float> out(64);
    for (std::int32_t token = 0; token < 100; ++token) {
      embedding.forward(&token, out.data(), 1);
      EXPECT_TRUE(std::equal(out.begin(), out.end(), values.begin() + token * 64));
    }
  });
}

TEST(RowParallelTest, RefusesShardsThatAreNotTheRanks) {
  const LayerStack stack;
  const auto backend = kernels::make_reference_backend();
  const auto single = make_single();
  ExchangeWorkspace exchange(*backend, *single, 2);
  const kernels::HostMatrix weight = stack.random_matrix(4, 64, 1);
  const std::vector<IndexRange> halves = {{0, 32}, {32, 64}};
  EXPECT_NO_THROW(RowParallelLinear(exchange, weight, halves, 0));
  EXPECT_THROW(RowParallelLinear(exchange, weight, halves, 1), FatalError);
  EXPECT_THROW(RowParallelLinear(exchange, weight, std::span(halves).first(1), 0), FatalError);
  EXPECT_THROW(ExchangeWorkspace(*backend, *single, 0), FatalError);
}

}  // namespace
}  // namespace paceline::parallel
