#include "drafter/training/gemm.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/core/error.h"
#include "tests/drafter/training/random_numbers.h"

namespace paceline::drafter {
namespace {

using ::testing::ElementsAre;

double element(const Factor& factor, std::int64_t row, std::int64_t col) {
  return factor.transposed ? factor.matrix.row(col)[row] : factor.matrix.row(row)[col];
}

/// The largest difference between c and before + a b, computed in double.
double error_of(const Factor& a, const Factor& b, ConstMatrix before, ConstMatrix c) {
  double largest = 0;
  for (std::int64_t i = 0; i < c.rows; ++i) {
    for (std::int64_t j = 0; j < c.cols; ++j) {
      double sum = before.row(i)[j];
      for (std::int64_t k = 0; k < a.cols(); ++k) sum += element(a, i, k) * element(b, k, j);
      largest = std::max(largest, std::abs(sum - c.row(i)[j]));
    }
  }
  return largest;
}

TEST(Gemm, MultipliesAsWritten) {
  kernels::ThreadPool pool(1);
  Gemm gemm(pool);
  std::vector<float> a{1, 2, 3, 4, 5, 6}, b{1, 0, 2, 0, 1, 1}, c(4, -1);
  gemm.multiply(const_matrix(a, 3), transpose(const_matrix(b, 3)), matrix(c, 2));
  EXPECT_THAT(c, ElementsAre(1 + 6, 2 + 3, 4 + 12, 5 + 6));
  gemm.multiply_add(const_matrix(a, 3), transpose(const_matrix(b, 3)), matrix(c, 2));
  EXPECT_THAT(c, ElementsAre(14, 10, 32, 22));
}

// Several tiles, the last ones cut; every order; views that are narrower than their rows.
TEST(Gemm, EveryOrderAndStride) {
  constexpr std::int64_t kRows = 300, kCols = 500, kInner = 40, kStride = 520;
  kernels::ThreadPool pool(2);
  Gemm gemm(pool);
  RandomNumbers random(1);
  const std::vector<float> values_a = random.vector(kRows * kStride);
  const std::vector<float> values_b = random.vector(kCols * kStride);
  const std::vector<float> before = random.vector(kRows * kStride);
  for (const bool transpose_a : {false, true}) {
    for (const bool transpose_b : {false, true}) {
      const ConstMatrix a{values_a.data(), transpose_a ? kInner : kRows,
                          transpose_a ? kRows : kInner, kStride};
      const ConstMatrix b{values_b.data(), transpose_b ? kCols : kInner,
                          transpose_b ? kInner : kCols, kStride};
      std::vector<float> c = before;
      const Matrix out{c.data(), kRows, kCols, kStride};
      gemm.multiply_add({a, transpose_a}, {b, transpose_b}, out);
      const ConstMatrix start{before.data(), kRows, kCols, kStride};
      EXPECT_LT(error_of({a, transpose_a}, {b, transpose_b}, start, out), 2e-5);
      for (std::int64_t r = 0; r < kRows; ++r) {  // what lies beside the view is not written
        EXPECT_TRUE(std::equal(c.begin() + r * kStride + kCols, c.begin() + (r + 1) * kStride,
                               before.begin() + r * kStride + kCols));
      }
    }
  }
}

std::vector<GemmPrecision> precisions() {
  if (!Gemm::has_bf16()) return {GemmPrecision::kFp32};
  return {GemmPrecision::kFp32, GemmPrecision::kBf16};
}

// Whole numbers up to 256 are exact in bf16, and so are their fp32 sums here: every order, views
// narrower than their rows, several tiles.
TEST(Gemm, Bf16RoundsTheFactorsAndNothingElse) {
  kernels::ThreadPool pool(2);
  if (!Gemm::has_bf16()) {
    EXPECT_THROW(Gemm(pool, GemmPrecision::kBf16), ConfigError);
    return;
  }
  Gemm gemm(pool, GemmPrecision::kBf16);
  constexpr std::int64_t kRows = 260, kCols = 390, kInner = 33, kStride = 400;
  RandomNumbers random(5);
  const auto whole_numbers = [&](std::int64_t size) {
    std::vector<float> values = random.vector(size, 100);
    for (float& value : values) value = std::round(value);
    return values;
  };
  const std::vector<float> values_a = whole_numbers(kRows * kStride);
  const std::vector<float> values_b = whole_numbers(kCols * kStride);
  const std::vector<float> before = whole_numbers(kRows * kStride);
  for (const bool transpose_a : {false, true}) {
    for (const bool transpose_b : {false, true}) {
      const ConstMatrix a{values_a.data(), transpose_a ? kInner : kRows,
                          transpose_a ? kRows : kInner, kStride};
      const ConstMatrix b{values_b.data(), transpose_b ? kCols : kInner,
                          transpose_b ? kInner : kCols, kStride};
      std::vector<float> c = before;
      const Matrix out{c.data(), kRows, kCols, kStride};
      gemm.multiply_add({a, transpose_a}, {b, transpose_b}, out);
      EXPECT_EQ(error_of({a, transpose_a}, {b, transpose_b},
                         ConstMatrix{before.data(), kRows, kCols, kStride}, out),
                0);
      EXPECT_EQ(c[kCols], before[kCols]);  // beside the view
    }
  }
  std::vector<float> a{1 + 0x1p-9f}, b{3}, c{7};  // rounds to 1
  gemm.multiply(matrix(a, 1), matrix(b, 1), matrix(c, 1));
  EXPECT_EQ(c[0], 3);
}

TEST(Gemm, TheSameBitsWhateverTheThreads) {
  for (const GemmPrecision precision : precisions()) {
    RandomNumbers random(2);
    const std::vector<float> a = random.vector(700 * 90), b = random.vector(800 * 90);
    std::vector<std::vector<float>> results;
    for (const int threads : {1, 2, 5}) {
      kernels::ThreadPool pool(threads);
      Gemm gemm(pool, precision);
      std::vector<float>& c = results.emplace_back(700 * 800);
      gemm.multiply(const_matrix(a, 90), transpose(const_matrix(b, 90)), matrix(c, 800));
    }
    EXPECT_EQ(results[1], results[0]);
    EXPECT_EQ(results[2], results[0]);
  }
}

TEST(Gemm, RefusesShapesThatDoNotFit) {
  kernels::ThreadPool pool(1);
  Gemm gemm(pool);
  std::vector<float> a(6), b(6), c(4);
  EXPECT_THROW(gemm.multiply(const_matrix(a, 3), const_matrix(b, 3), matrix(c, 2)), FatalError);
  EXPECT_THROW(gemm.multiply(const_matrix(a, 3), const_matrix(b, 2), matrix(c, 4)), FatalError);
}

TEST(Gemm, AnEmptySumIsZero) {
  for (const GemmPrecision precision : precisions()) {
    kernels::ThreadPool pool(1);
    Gemm gemm(pool, precision);
    std::vector<float> c{1, 2};
    const ConstMatrix a{c.data(), 1, 0, 1}, b{c.data(), 0, 2, 2};
    gemm.multiply_add(a, b, matrix(c, 2));
    EXPECT_THAT(c, ElementsAre(1, 2));
    gemm.multiply(a, b, matrix(c, 2));
    EXPECT_THAT(c, ElementsAre(0, 0));
  }
}

}  // namespace
}  // namespace paceline::drafter
