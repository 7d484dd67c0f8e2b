#include "runtime/bench/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace paceline::runtime {
namespace {

TEST(Summarize, AWorkedExample) {
  const Summary summary = summarize(std::vector<double>{9, 1, 4, 2});
  EXPECT_EQ(summary.count, 4u);
  EXPECT_EQ(summary.mean, 4);
  EXPECT_EQ(summary.median, 3);
  // Squares of -3, -2, 0, 5 are 38, over 3.
  EXPECT_DOUBLE_EQ(summary.stddev, std::sqrt(38.0 / 3.0));
  EXPECT_EQ(summary.min, 1);
  EXPECT_EQ(summary.max, 9);
}

TEST(Summarize, OneValueHasNoSpreadAndNoneIsNothing) {
  const Summary one = summarize(std::vector<double>{7});
  EXPECT_EQ(one.count, 1u);
  EXPECT_EQ(one.mean, 7);
  EXPECT_EQ(one.median, 7);
  EXPECT_EQ(one.stddev, 0);
  const Summary none = summarize({});
  EXPECT_EQ(none.count, 0u);
  EXPECT_EQ(none.mean, 0);
  EXPECT_EQ(none.max, 0);
}

// numpy.percentile([1, 2, 4, 9], [0, 25, 50, 90, 100])
TEST(Percentile, InterpolatesAsNumpyDoes) {
  const std::vector<double> values = {4, 9, 1, 2};
  EXPECT_EQ(percentile(values, 0), 1);
  EXPECT_EQ(percentile(values, 0.25), 1.75);
  EXPECT_EQ(percentile(values, 0.5), 3);
  EXPECT_DOUBLE_EQ(percentile(values, 0.9), 7.5);
  EXPECT_EQ(percentile(values, 1), 9);
  EXPECT_EQ(percentile(std::vector<double>{5}, 0.99), 5);
  EXPECT_EQ(percentile({}, 0.5), 0);
}

TEST(Ratio, OfNothingIsNothing) {
  EXPECT_EQ(ratio(3, 2), 1.5);
  EXPECT_EQ(ratio(3, 0), 0);
}

}  // namespace
}  // namespace paceline::runtime
