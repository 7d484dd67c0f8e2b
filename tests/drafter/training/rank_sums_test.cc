#include "drafter/training/rank_sums.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/drafter/training/random_numbers.h"
#include "tests/parallel/rank_threads.h"

namespace paceline::drafter {
namespace {

using ::testing::ElementsAre;

TEST(RankSums, AddInTheOrderOfTheRanks) {
  constexpr int kRanks = 3;
  std::vector<std::vector<float>> mine, results(kRanks);
  for (std::uint32_t rank = 0; rank < kRanks; ++rank) {
    mine.push_back(RandomNumbers(rank).vector(1000));
  }
  parallel::run_ranks(kRanks, [&](parallel::Communicator& group) {
    std::vector<float> values = mine[group.rank()];
    RankSums(group, 64).sum(values);  // chunks, the last one cut
    results[group.rank()] = values;
  });
  std::vector<float> expected;
  for (int i = 0; i < 1000; ++i) expected.push_back((mine[0][i] + mine[1][i]) + mine[2][i]);
  for (const std::vector<float>& result : results) EXPECT_EQ(result, expected);
}

TEST(RankSums, OfOneRankAreItsOwn) {
  const auto group = parallel::make_single();
  std::vector<double> values{1, 2};
  RankSums(*group).sum(values);
  EXPECT_THAT(values, ElementsAre(1, 2));
}

}  // namespace
}  // namespace paceline::drafter
