#include "parallel/timed_communicator.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "tests/parallel/rank_threads.h"

namespace paceline::parallel {
namespace {

// Rank 1 comes 20 ms late, so that rank 0 waits that long at least.
TEST(TimedCommunicator, PassesEverythingOnAndCountsTheWait) {
  run_ranks(2, [](Communicator& group) {
    TimedCommunicator timed(group);
    EXPECT_EQ(timed.rank(), group.rank());
    EXPECT_EQ(timed.size(), 2);
    EXPECT_EQ(timed.exchange(), group.exchange());
    const std::byte mine{static_cast<unsigned char>(7 + timed.rank())};
    std::byte all[2] = {};
    const std::vector<std::size_t> sizes = {1, 1};
    if (timed.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    timed.all_gather({&mine, 1}, all, sizes);
    EXPECT_EQ(all[0], std::byte{7});
    EXPECT_EQ(all[1], std::byte{8});
    if (timed.rank() == 0) {
      EXPECT_GE(timed.seconds(), 0.01);
    }

    std::byte slices[2] = {};
    const std::byte row[2] = {std::byte{1}, mine};
    timed.gather_slices(row, slices, std::vector<std::int64_t>{1, 1}, sizes);
    EXPECT_EQ(slices[1], timed.rank() == 0 ? std::byte{1} : std::byte{8});
    EXPECT_EQ(timed.device(), nullptr);

    std::byte told{static_cast<unsigned char>(timed.rank())};
    timed.broadcast({&told, 1}, 1);
    EXPECT_EQ(told, std::byte{1});
    timed.barrier();
    EXPECT_EQ(timed.calls(), 4);
  });
}

}  // namespace
}  // namespace paceline::parallel
