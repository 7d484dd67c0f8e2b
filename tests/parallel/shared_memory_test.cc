#include "parallel/shared_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "kernels/core/error.h"
#include "tests/parallel/rank_threads.h"

namespace paceline::parallel {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::byte pattern(int rank, std::size_t i, int round) {
  return static_cast<std::byte>((rank * 101 + static_cast<int>(i) * 7 + round * 13) & 0xff);
}

TEST(SharedGroupTest, GathersBlocksOfDifferentSizesInRankOrder) {
  RankState state;
  state.set_crowded(true);
  const std::vector<std::size_t> sizes = {5, 0, 200, 64};  // more and less than a chunk
  run_ranks(4, 64, state, [&](Communicator& group) {
    std::vector<std::byte> all(269);
    for (int round = 0; round < 50; ++round) {
      std::vector<std::byte> mine(sizes[group.rank()]);
      for (std::size_t i = 0; i < mine.size(); ++i) mine[i] = pattern(group.rank(), i, round);
      group.all_gather(mine, all, sizes);
      std::size_t at = 0;
      for (int rank = 0; rank < 4; ++rank) {
        for (std::size_t i = 0; i < sizes[rank]; ++i) {
          ASSERT_EQ(all[at++], pattern(rank, i, round));
        }
      }
    }
  });
}

// Rows of 5, 64, 0 and 300 bytes for ranks 0 to 3; rank r has r of them.
TEST(SharedGroupTest, GathersASliceOfEveryRanksRows) {
  RankState state;
  state.set_crowded(true);
  const std::vector<std::size_t> slices = {5, 64, 0, 300};
  const std::vector<std::int64_t> rows = {0, 1, 2, 3};
  run_ranks(4, 64, state, [&](Communicator& group) {
    const int rank = group.rank();
    const std::size_t begin = std::vector<std::size_t>{0, 5, 69, 69}[rank];
    for (int round = 0; round < 20; ++round) {
      std::vector<std::byte> mine(369 * rank);
      for (std::size_t i = 0; i < mine.size(); ++i) mine[i] = pattern(rank, i, round);
      std::vector<std::byte> out(6 * slices[rank]);
      group.gather_slices(mine, out, rows, slices);
      std::size_t at = 0;
      for (int peer = 0; peer < 4; ++peer) {
        for (int row = 0; row < peer; ++row) {
          for (std::size_t i = 0; i < slices[rank]; ++i) {
            ASSERT_EQ(out[at++], pattern(peer, 369 * row + begin + i, round));
          }
        }
      }
    }
  });
}

TEST(SharedGroupTest, ABlockMayAlreadyLieInItsPlace) {
  const RankState state;
  const std::vector<std::size_t> sizes = {8, 8, 8};
  run_ranks(3, 64, state, [&](Communicator& group) {
    std::vector<std::byte> all(24);
    const std::span<std::byte> mine = std::span(all).subspan(8 * group.rank(), 8);
    for (std::size_t i = 0; i < 8; ++i) mine[i] = pattern(group.rank(), i, 0);
    group.all_gather(mine, all, sizes);
    for (std::size_t i = 0; i < 24; ++i) {
      EXPECT_EQ(all[i], pattern(static_cast<int>(i / 8), i % 8, 0));
    }
  });
}

TEST(SharedGroupTest, BroadcastsFromAnyRankBetweenOtherOperations) {
  const RankState state;
  run_ranks(3, 64, state, [&](Communicator& group) {
    std::vector<std::byte> data(150);
    for (int round = 0; round < 60; ++round) {
      const int root = round % 3;
      for (std::size_t i = 0; i < data.size(); ++i) {
        data[i] = group.rank() == root ? pattern(root, i, round) : std::byte{0};
      }
      group.broadcast(data, root);
      if (round % 4 == 0) group.barrier();
      for (std::size_t i = 0; i < data.size(); ++i) ASSERT_EQ(data[i], pattern(root, i, round));
    }
  });
}

TEST(SharedGroupTest, NamesTheRanksThatDoNotCome) {
  RankState state;
  state.enter("decode", std::chrono::milliseconds(50));
  run_ranks(4, 64, state, [&](Communicator& group) {
    if (group.rank() == 1 || group.rank() == 3) return;
    try {
      group.barrier();
      FAIL() << "the barrier returned without ranks 1 and 3";
    } catch (const FatalError& error) {
      EXPECT_THAT(error.what(), AllOf(HasSubstr("rank 1 and rank 3 in decode"),
                                      HasSubstr("waited 0.05"), Not(HasSubstr("rank 0"))));
    }
  });
}

TEST(SharedGroupTest, RefusesSizesThatDoNotFit) {
  const RankState state;
  run_ranks(1, 64, state, [&](Communicator& group) {
    std::vector<std::byte> all(8);
    const std::vector<std::size_t> sizes = {8};
    EXPECT_THROW(group.all_gather(std::span(all).first(7), all, sizes), FatalError);
    EXPECT_THROW(group.all_gather(all, std::span(all).first(7), sizes), FatalError);
    EXPECT_THROW(group.all_gather(all, all, std::vector<std::size_t>{4, 4}), FatalError);
    EXPECT_THROW(group.broadcast(all, 1), FatalError);
  });
}

TEST(SharedSegmentTest, CanBeMappedTwiceAndIsTheSameMemory) {
  SharedSegment first(1000);
  const SharedSegment second(getpid(), first.descriptor(), 1000);
  std::memcpy(first.bytes().data() + 990, "shared", 6);
  EXPECT_EQ(std::memcmp(second.bytes().data() + 990, "shared", 6), 0);
  EXPECT_THROW(SharedSegment(getpid(), first.descriptor(), 2000), std::system_error);
  const int descriptor = first.descriptor();
  first.close_descriptor();
  EXPECT_THROW(SharedSegment(getpid(), descriptor, 1000), std::system_error);
}

TEST(SingleTest, KeepsItsOwnBytes) {
  const auto single = make_single();
  const std::vector<std::byte> mine(3, std::byte{7});
  std::vector<std::byte> all(3);
  single->all_gather(mine, all, std::vector<std::size_t>{3});
  EXPECT_EQ(all, mine);
  EXPECT_THROW(single->broadcast(all, 1), FatalError);
}

}  // namespace
}  // namespace paceline::parallel
