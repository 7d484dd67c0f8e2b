#include "runtime/training/training_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <ostream>
#include <set>

#include "kernels/core/error.h"

namespace paceline::runtime {

void PrintTo(const Window& window, std::ostream* to) {
  *to << window.text << ": " << window.first << "+" << window.positions;
}

namespace {

/// 100 texts of 0 to 99 positions.
std::vector<std::int32_t> many_texts() {
  std::vector<std::int32_t> positions(100);
  std::iota(positions.begin(), positions.end(), 0);
  return positions;
}

OrderOptions options(int replicas = 1, int ranks = 1) {
  return {.batch_positions = 128,
          .group_positions = 1000,
          .window = 16,
          .seed = 7,
          .replicas = replicas,
          .ranks_per_replica = ranks};
}

std::vector<Window> all_ranks(TrainingOrder& order, std::uint64_t index, const OrderOptions& of) {
  std::vector<Window> all;
  for (int replica = 0; replica < of.replicas; ++replica) {
    for (int rank = 0; rank < of.ranks_per_replica; ++rank) {
      const auto part = order.windows(order.place(index), replica, rank);
      all.insert(all.end(), part.begin(), part.end());
    }
  }
  return all;
}

TEST(TrainingOrder, AnEpochTakesEveryPositionOnceWhateverTheRanks) {
  for (const auto& [replicas, ranks] :
       {std::pair(1, 1), std::pair(3, 1), std::pair(1, 2), std::pair(2, 2)}) {
    const OrderOptions of = options(replicas, ranks);
    TrainingOrder order(many_texts(), of);
    std::map<std::pair<std::int32_t, std::int32_t>, int> times;
    for (std::uint64_t index = 0; index < order.minibatches(1); ++index) {
      for (const Window& window : all_ranks(order, index, of)) {
        for (std::int32_t i = 0; i < window.positions; ++i)
          ++times[{window.text, window.first + i}];
      }
    }
    EXPECT_EQ(times.size(), 99u * 100 / 2);
    EXPECT_TRUE(std::ranges::all_of(times, [](const auto& entry) { return entry.second == 1; }));
  }
}

TEST(TrainingOrder, AMinibatchIsAFunctionOfItsIndex) {
  TrainingOrder forward(many_texts(), options());
  std::vector<std::vector<Window>> batches;
  const std::uint64_t count = forward.minibatches(2);
  for (std::uint64_t index = 0; index < count; ++index) {
    batches.push_back(forward.windows(forward.place(index), 0, 0));
  }
  TrainingOrder resumed(many_texts(), options());
  for (std::uint64_t index = count; index-- > 0;) {
    EXPECT_EQ(resumed.windows(resumed.place(index), 0, 0), batches[index]) << index;
  }
}

TEST(TrainingOrder, MinibatchesAreAboutOfTheSizeAskedForAndMixTexts) {
  TrainingOrder order(many_texts(), options());
  for (std::uint64_t index = 0; index < order.minibatches(1); ++index) {
    std::int32_t positions = 0;
    std::set<std::int32_t> texts;
    for (const Window& window : order.windows(order.place(index), 0, 0)) {
      EXPECT_LE(window.positions, 16);
      positions += window.positions;
      texts.insert(window.text);
    }
    EXPECT_NEAR(positions, 128, 64) << index;  // the last group may be small
    EXPECT_GT(texts.size(), 3u);
  }
}

TEST(TrainingOrder, EpochsAndSeedsDifferInTheirOrder) {
  TrainingOrder order(many_texts(), options());
  EXPECT_EQ(order.place(order.minibatches(1)).epoch, 1u);
  EXPECT_NE(order.texts(0, 0, 0), order.texts(1, 0, 0));
  OrderOptions other = options();
  other.seed = 8;
  EXPECT_NE(TrainingOrder(many_texts(), other).texts(0, 0, 0), order.texts(0, 0, 0));
}

TEST(TrainingOrder, ATextStaysWithItsReplica) {
  TrainingOrder order(many_texts(), options(3));
  for (std::uint64_t epoch = 0; epoch < 3; ++epoch) {
    for (const std::int32_t text : order.texts(epoch, 1, 2)) EXPECT_EQ(text % 3, 2);
  }
}

// The header's example: 12 positions in two minibatches of 6.
TEST(TrainingOrder, CutsTheWindowAtTheBorderOfTwoMinibatches) {
  TrainingOrder order({5, 3, 4}, {.batch_positions = 6, .group_positions = 100, .window = 2});
  EXPECT_EQ(order.minibatches(1), 2u);
  for (std::uint64_t index = 0; index < 2; ++index) {
    std::int32_t positions = 0;
    for (const Window& window : order.windows(order.place(index), 0, 0)) {
      positions += window.positions;
    }
    EXPECT_EQ(positions, 6);
  }
}

TEST(TrainingOrder, NeedsAPosition) { EXPECT_THROW(TrainingOrder({0, 0}, options()), FatalError); }

}  // namespace
}  // namespace paceline::runtime
