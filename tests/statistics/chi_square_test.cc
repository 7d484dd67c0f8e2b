#include "tests/statistics/chi_square.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace paceline::statistics {
namespace {

using Counts = std::vector<std::int64_t>;
using Shares = std::vector<double>;

TEST(ChiSquareTail, GivesTheValuesOfTheTables) {
  EXPECT_NEAR(chi_square_tail(3.841458820694124, 1), 0.05, 1e-12);
  EXPECT_NEAR(chi_square_tail(6.634896601021213, 1), 0.01, 1e-12);
  EXPECT_NEAR(chi_square_tail(18.307038053275146, 10), 0.05, 1e-12);
  EXPECT_NEAR(chi_square_tail(124.34211340400407, 100), 0.05, 1e-12);
  EXPECT_NEAR(chi_square_tail(3.9402991361190605, 10), 0.95, 1e-12);
  EXPECT_EQ(chi_square_tail(0, 5), 1);
}

TEST(ChiSquareTail, IsASumOfExponentialsForEvenDegrees) {
  for (const double x : {0.5, 3.0, 11.0, 60.0, 400.0}) {
    const double two = std::exp(-x / 2);
    EXPECT_NEAR(chi_square_tail(x, 2) / two, 1, 1e-12) << x;
    EXPECT_NEAR(chi_square_tail(x, 4) / (two * (1 + x / 2)), 1, 1e-12) << x;
    EXPECT_NEAR(chi_square_tail(x, 6) / (two * (1 + x / 2 + x * x / 8)), 1, 1e-12) << x;
  }
}

TEST(ChiSquare, JudgesADie) {
  const Counts counts = {5, 8, 9, 8, 10, 20};
  const ChiSquare result = chi_square(counts, Shares(6, 1.0 / 6));
  EXPECT_NEAR(result.statistic, 13.4, 1e-12);
  EXPECT_EQ(result.degrees, 5);
  EXPECT_NEAR(result.p_value, 0.01990522, 1e-8);
}

TEST(ChiSquare, TakesRareCellsTogether) {
  // Of 100 draws 4, 3 and 2 are expected in the last cells: 9 in one.
  const ChiSquare result = chi_square(Counts{50, 38, 6, 6, 0}, Shares{0.5, 0.41, 0.04, 0.03, 0.02});
  EXPECT_NEAR(result.statistic, 9.0 / 41 + 9.0 / 9, 1e-12);
  EXPECT_EQ(result.degrees, 2);
}

TEST(ChiSquare, WhatCannotHappenFitsNothing) {
  EXPECT_EQ(chi_square(Counts{50, 49, 1}, Shares{0.5, 0.5, 0}).p_value, 0);
  const ChiSquare possible = chi_square(Counts{50, 50, 0}, Shares{0.5, 0.5, 0});
  EXPECT_EQ(possible.statistic, 0);
  EXPECT_EQ(possible.degrees, 1);
}

TEST(ChiSquare, OneCellAlwaysFits) { EXPECT_EQ(chi_square(Counts{7}, Shares{1}).p_value, 1); }

// Its p-values are what they are called: of fair draws about one in ten is below 0.1.
TEST(ChiSquare, PValuesOfFairDrawsAreEven) {
  std::mt19937 random(1);
  constexpr int kTrials = 2000;
  int below = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    Counts counts(16);
    for (int i = 0; i < 1000; ++i) ++counts[random() % 16];
    below += chi_square(counts, Shares(16, 1.0 / 16)).p_value < 0.1;
  }
  EXPECT_GT(below, kTrials * 7 / 100);
  EXPECT_LT(below, kTrials * 13 / 100);
}

}  // namespace
}  // namespace paceline::statistics
