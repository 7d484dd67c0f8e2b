#include "parallel/nccl/group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <numeric>
#include <thread>

#include "kernels/core/error.h"
#include "tests/parallel/nccl/nccl_ranks.h"

namespace paceline::parallel {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Kind = NcclOperation::Kind;

/// The message of the FatalError that `work` throws.
template <typename Work>
std::string failure_of(const Work& work) {
  try {
    work();
  } catch (const FatalError& error) {
    return error.what();
  }
  return "nothing";
}

TEST(NcclGroupTest, HostsExchangeAsBeforeAndDevicesByNccl) {
  FakeNcclNetwork network(3);
  run_nccl_ranks(network, 3, AllReduce::kCanonical, [](Communicator& group) {
    EXPECT_EQ(group.exchange(), "NCCL");
    ASSERT_NE(group.device(), nullptr);
    EXPECT_FALSE(group.device()->reduces());
    const std::byte mine{static_cast<unsigned char>(group.rank())};
    std::vector<std::byte> all(3);
    group.all_gather({&mine, 1}, all, std::vector<std::size_t>(3, 1));
    EXPECT_THAT(all, ElementsAre(std::byte{0}, std::byte{1}, std::byte{2}));
    std::byte told{static_cast<unsigned char>(group.rank())};
    group.broadcast({&told, 1}, 2);
    EXPECT_EQ(told, std::byte{2});
    group.barrier();
  });
  EXPECT_EQ(network.destroyed(), 3);  // in order: what began well ended well
  EXPECT_EQ(network.aborted(), 0);
}

TEST(NcclGroupTest, GathersEqualBlocksAtOnceAndOthersByBroadcasts) {
  const std::vector<std::vector<std::size_t>> cases = {{4, 4, 4}, {5, 0, 2}, {0, 0, 7}, {0, 0, 0}};
  for (const std::vector<std::size_t>& counts : cases) {
    FakeNcclNetwork network(3);
    run_nccl_ranks(network, 3, AllReduce::kCanonical, [&](Communicator& group) {
      std::vector<float> expected(std::reduce(counts.begin(), counts.end()));
      std::iota(expected.begin(), expected.end(), 1.0f);
      std::vector<float> all(expected.size());
      const std::size_t begin = std::reduce(counts.begin(), counts.begin() + group.rank());
      std::copy_n(expected.begin() + begin, counts[group.rank()], all.begin() + begin);
      group.device()->all_gather(all.data(), counts);
      EXPECT_EQ(all, expected);
    });
    const bool equal = counts[0] == 4;
    EXPECT_EQ(network.operations(Kind::kAllGather), equal ? 3 : 0);
    const auto blocks = 3 - std::count(counts.begin(), counts.end(), 0);  // of something
    EXPECT_EQ(network.operations(Kind::kBroadcast), equal ? 0 : 3 * blocks);
  }
}

// The example of Communicator::gather_slices: rows ab | cd ef, a slice of one each.
TEST(NcclGroupTest, EachRankGetsItsSliceOfAllRows) {
  FakeNcclNetwork network(2);
  run_nccl_ranks(network, 2, AllReduce::kCanonical, [](Communicator& group) {
    const std::vector<std::vector<float>> rows = {{'a', 'b'}, {'c', 'd', 'e', 'f'}};
    std::vector<float> out(3);
    group.device()->gather_slices(rows[group.rank()].data(), out.data(),
                                  std::vector<std::int64_t>{1, 2}, std::vector<std::size_t>{1, 1});
    EXPECT_EQ(out, group.rank() == 0 ? (std::vector<float>{'a', 'c', 'e'})
                                     : (std::vector<float>{'b', 'd', 'f'}));
  });
}

TEST(NcclGroupTest, NcclAddsInItsOwnOrderIfItIsLeftToIt) {
  FakeNcclNetwork network(3);
  run_nccl_ranks(network, 3, AllReduce::kNccl, [](Communicator& group) {
    EXPECT_TRUE(group.device()->reduces());
    const float of_rank[] = {1.0f, 0x1p25f, -0x1p25f};
    float sum = of_rank[group.rank()];
    group.device()->all_reduce(&sum, 1);
    EXPECT_EQ(sum, 1.0f);  // (-2^25 + 2^25) + 1; our order gives (1 + 2^25) - 2^25 = 0
  });
  EXPECT_EQ(network.operations(Kind::kAllReduce), 3);
}

TEST(NcclGroupTest, ARankThatDoesNotComeIsNamed) {
  RankState state;
  state.enter("connect", std::chrono::milliseconds(50));
  FakeNcclNetwork network(3);  // one more than come
  JobEnds ends;
  run_ranks(2, kSharedChunk, state, [&](Communicator& host) {
    const std::string failure = failure_of([&] { join_nccl(host, network, state, ends); });
    EXPECT_THAT(failure, AllOf(HasSubstr("waited "),
                               HasSubstr("for NCCL's communicator with rank " +
                                         std::to_string(1 - host.rank())),
                               HasSubstr("in connect")));
  });
  EXPECT_EQ(ends.all().size(), 2u);  // before the exceptions are on their way
}

// The device waits for a rank that is stuck, and the host for the device: nothing but the monitor
// can tell.
TEST(NcclGroupTest, AnExchangeThatDoesNotEndEndsTheJob) {
  RankState state;
  state.set_crowded(true);
  FakeNcclNetwork network(2);
  JobEnds ends;
  run_ranks(2, kSharedChunk, state, [&](Communicator& host) {
    const auto group = join_nccl(host, network, state, ends);
    std::vector<float> all = {1, 1};
    const std::vector<std::size_t> counts = {1, 1};
    group->device()->all_gather(all.data(), counts);
    host.barrier();
    network.stall(1);
    host.barrier();
    state.enter("decode", std::chrono::seconds(1));
    EXPECT_THROW(group->device()->all_gather(all.data(), counts), FatalError);
    while (network.aborted() < 2) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const std::string expected =
        "for an exchange by NCCL with rank " + std::to_string(1 - host.rank()) + " in decode";
    EXPECT_THAT(ends.all(), testing::Contains(HasSubstr(expected)));
    // What the stream left in memory goes nowhere.
    EXPECT_THAT(failure_of([&] { group->device()->all_gather(all.data(), counts); }),
                HasSubstr(expected));
    EXPECT_THAT(failure_of([&] { group->barrier(); }), HasSubstr(expected));
  });
  EXPECT_EQ(network.destroyed(), 0);
}

TEST(NcclGroupTest, AFailureThatNcclNoticesEndsTheJob) {
  RankState state;
  state.set_crowded(true);
  FakeNcclNetwork network(2);
  JobEnds ends;
  run_ranks(2, kSharedChunk, state, [&](Communicator& host) {
    const auto group = join_nccl(host, network, state, ends);
    host.barrier();
    if (host.rank() == 0) network.fail("NCCL: remote process exited");
    while (network.aborted() < 2) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_EQ(failure_of([&] { group->barrier(); }), "NCCL: remote process exited");
  });
  EXPECT_THAT(ends.all(),
              ElementsAre("NCCL: remote process exited", "NCCL: remote process exited"));
}

TEST(NcclObstacleTest, NamesTheRanksThatShareAGpu) {
  run_ranks(3, [](Communicator& group) {
    const kernels::NativeStream stream{
        .stream = nullptr, .device = 0, .device_id = group.rank() == 1 ? "GPU-b" : "GPU-a"};
    const kernels::NativeStream own{
        .stream = nullptr, .device = 0, .device_id = "GPU-" + std::to_string(group.rank())};
    const std::string missing = nccl_missing();  // where it was not built, that comes first
    EXPECT_EQ(nccl_obstacle(group, names_of(3), &stream),
              missing.empty() ? "rank 0 and rank 2 share GPU-a, expected a GPU for each" : missing);
    EXPECT_EQ(nccl_obstacle(group, names_of(3), &own), missing);
    EXPECT_EQ(
        nccl_obstacle(group, names_of(3), group.rank() == 1 ? nullptr : &own),
        missing.empty() ? "rank 1 computes on the CPU, expected a GPU (--device cuda)" : missing);
  });
}

TEST(NcclCallsTest, WhatWasNotBuiltSaysSo) {
  if (nccl_missing().empty()) GTEST_SKIP() << "NCCL was built";
  EXPECT_THROW(make_nccl_calls({}), ConfigError);
}

TEST(AllReduceTest, HasTwoNames) {
  EXPECT_EQ(parse_all_reduce("canonical"), AllReduce::kCanonical);
  EXPECT_EQ(parse_all_reduce("nccl"), AllReduce::kNccl);
  EXPECT_THROW(parse_all_reduce("ring"), ConfigError);
}

}  // namespace
}  // namespace paceline::parallel
