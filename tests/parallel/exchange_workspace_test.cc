#include "parallel/exchange_workspace.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "kernels/core/error.h"
#include "parallel/shards.h"
#include "tests/parallel/nccl/nccl_ranks.h"

namespace paceline::parallel {
namespace {

constexpr int kShards = 8;

/// Partial sums whose sum depends on the order of its additions.
std::vector<float> partials_of(int index, std::int64_t size) {
  std::mt19937 random(static_cast<unsigned>(index) + 1);
  std::vector<float> values(static_cast<std::size_t>(size));
  for (float& value : values) {
    value = static_cast<float>(static_cast<std::int32_t>(random())) * 0x1p-20f;
  }
  return values;
}

/// residual + the sum of all partials, as one rank that has all of them adds it.
std::vector<float> expected_sum(const PartialSums& partials, std::int64_t size) {
  std::vector<float> all, out(static_cast<std::size_t>(size), 0.5f);
  for (std::size_t p = 0; p < partials.merges.size(); ++p) {
    const std::vector<float> one = partials_of(static_cast<int>(p), size);
    all.insert(all.end(), one.begin(), one.end());
  }
  kernels::make_reference_backend()->sum_partials(
      {all.data(), partials.merges, size, out.data(), out.data()});
  return out;
}

/// The same as one of the group's ranks gets it.
std::vector<float> exchanged_sum(Communicator& group, std::int64_t worth_slicing,
                                 std::int64_t size) {
  const auto backend = kernels::make_reference_backend();
  ExchangeWorkspace exchange(*backend, group, kShards, worth_slicing);
  const PartialSums partials = exchange.shard_sums();
  int first = static_cast<int>(
      std::reduce(partials.counts.begin(), partials.counts.begin() + group.rank()));
  float* mine = exchange.prepare_sum(partials, size);
  for (std::int64_t p = 0; p < partials.counts[group.rank()]; ++p) {
    const std::vector<float> one = partials_of(first++, size);
    mine = std::copy(one.begin(), one.end(), mine);
  }
  std::vector<float> out(static_cast<std::size_t>(size), 0.5f);
  ResidualStream stream{out.data()};
  exchange.add(partials, size, stream);
  exchange.settle(stream, size);
  return out;
}

constexpr std::int64_t kAlways = 0;
constexpr std::int64_t kNever = std::int64_t{1} << 60;

// Fewer elements than a slice is made of, equal slices, a short last one, none for some ranks.
const std::vector<std::int64_t> kSizes = {0, 1, 31, 32, 33, 256, 1000, 7 * 576};

PartialSums shard_sums_of(int ranks) {
  PartialSums sums;
  for (const int count : subtree_counts(kShards, ranks)) sums.counts.push_back(count);
  sums.merges = final_merges(kShards, ranks);
  return sums;
}

TEST(ExchangeWorkspaceTest, SlicesGiveTheSameBitsAsWholePartials) {
  for (const int ranks : {1, 2, 3, 5, 8}) {
    for (const std::int64_t size : kSizes) {
      const std::vector<float> expected = expected_sum(shard_sums_of(ranks), size);
      run_ranks(ranks, [&](Communicator& group) {
        EXPECT_EQ(exchanged_sum(group, kNever, size), expected) << ranks << " ranks, " << size;
        EXPECT_EQ(exchanged_sum(group, kAlways, size), expected) << ranks << " ranks, " << size;
      });
    }
  }
}

TEST(ExchangeWorkspaceTest, DevicesExchangeTheSameBitsByNccl) {
  using Kind = NcclOperation::Kind;
  for (const int ranks : {2, 3, 5, 8}) {
    FakeNcclNetwork network(ranks);
    run_nccl_ranks(network, ranks, AllReduce::kCanonical, [&](Communicator& group) {
      for (const std::int64_t size : kSizes) {
        const std::vector<float> expected = expected_sum(shard_sums_of(ranks), size);
        EXPECT_EQ(exchanged_sum(group, kNever, size), expected) << ranks << " ranks, " << size;
        EXPECT_EQ(exchanged_sum(group, kAlways, size), expected) << ranks << " ranks, " << size;
      }
    });
    EXPECT_GT(network.operations(Kind::kSend), 0);
    EXPECT_EQ(network.operations(Kind::kSend), network.operations(Kind::kReceive));
    EXPECT_EQ(network.operations(Kind::kAllReduce), 0);
  }
}

// Where NCCL adds, each rank gives one sum of its own, and nothing is cut.
TEST(ExchangeWorkspaceTest, NcclAddsTheRanksOwnSums) {
  FakeNcclNetwork network(3);
  run_nccl_ranks(network, 3, AllReduce::kNccl, [](Communicator& group) {
    std::vector<float> expected(1000);
    for (int rank = 2; rank >= 0; --rank) {  // the fake's order
      const std::vector<float> one = partials_of(rank, 1000);
      for (std::size_t i = 0; i < 1000; ++i) {
        expected[i] = rank == 2 ? one[i] : expected[i] + one[i];
      }
    }
    for (float& value : expected) value = 0.5f + value;
    EXPECT_EQ(exchanged_sum(group, kAlways, 1000), expected);
  });
  EXPECT_EQ(network.operations(NcclOperation::Kind::kSend), 0);
}

// 8 ranks save 5.25 sums of 7: 4 MiB are worth it, and 49 rows of 4096 are the first to be. 2 ranks
// of one partial each never save anything.
TEST(ExchangeWorkspaceTest, OnlyLongSumsAreCutIntoSlices) {
  const auto sends = [](int ranks, std::int64_t rows) {
    FakeNcclNetwork network(ranks);
    run_nccl_ranks(network, ranks, AllReduce::kCanonical, [&](Communicator& group) {
      const auto backend = kernels::make_reference_backend();
      ExchangeWorkspace exchange(*backend, group, kShards);
      const PartialSums partials = exchange.shard_sums();
      exchange.prepare_sum(partials, rows * 4096);
      std::vector<float> out(static_cast<std::size_t>(rows) * 4096);
      exchange.sum(partials, rows * 4096, out.data());
    });
    return network.operations(NcclOperation::Kind::kSend);
  };
  EXPECT_EQ(sends(8, 48), 0);
  EXPECT_EQ(sends(8, 49), 64);
  EXPECT_EQ(sends(2, 512), 0);
}

// Where all ranks can, what is exchanged lies in memory that NCCL knows; it grows on all of them at
// once. Else it lies elsewhere on all of them.
TEST(ExchangeWorkspaceTest, WhatIsExchangedIsRegisteredOnAllRanksOrOnNone) {
  constexpr std::int64_t kSize = std::int64_t{1} << 18;  // 8 partials are 8 MiB
  const auto registrations_of = [&](FakeNcclNetwork& network) {
    run_nccl_ranks(network, 3, AllReduce::kCanonical, [&](Communicator& group) {
      const auto backend = kernels::make_reference_backend();
      ExchangeWorkspace exchange(*backend, group, kShards, kAlways);
      const PartialSums partials = exchange.shard_sums();
      std::vector<float> out(2 * kSize);
      for (const std::int64_t size : {kSize / 8, kSize, kSize / 2, 2 * kSize}) {
        float* const mine = exchange.prepare_sum(partials, size);
        std::fill_n(mine, partials.counts[group.rank()] * size, 1.0f);
        exchange.sum(partials, size, out.data());
        EXPECT_EQ(out[static_cast<std::size_t>(size) - 1],
                  static_cast<float>(partials.merges.size()));
      }
    });
    EXPECT_EQ(network.destroyed(), 3);
    return network.registrations();
  };
  FakeNcclNetwork able(3);
  EXPECT_EQ(registrations_of(able), 3 * 3);
  FakeNcclNetwork without_memory(3);
  without_memory.refuse_memory(2);
  EXPECT_EQ(registrations_of(without_memory), 0);
  FakeNcclNetwork without_registration(3);
  without_registration.refuse_to_register(0);
  EXPECT_EQ(registrations_of(without_registration), 2 * 3);  // and all taken back
}

TEST(ExchangeWorkspaceTest, AGroupMayNotBeLargerThanTheShards) {
  run_ranks(2, [](Communicator& group) {
    const auto backend = kernels::make_reference_backend();
    EXPECT_THROW(ExchangeWorkspace(*backend, group, 1), FatalError);
  });
}

}  // namespace
}  // namespace paceline::parallel
