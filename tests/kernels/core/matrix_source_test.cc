#include "kernels/core/matrix_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <utility>
#include <vector>

#include "kernels/core/error.h"
#include "tests/kernels/linear_cases.h"

namespace paceline::kernels {
namespace {

using ::testing::ElementsAre;

HostMatrix fp32_matrix(std::int64_t rows, std::int64_t cols, const std::vector<float>& values) {
  HostMatrix matrix = make_matrix(WeightFormat::kFp32, rows, cols);
  std::memcpy(matrix.values.data(), values.data(), matrix.values.size());
  return matrix;
}

void expect_equal(const HostMatrix& got, const HostMatrix& expected) {
  EXPECT_EQ(got.format, expected.format);
  EXPECT_EQ(std::pair(got.rows, got.cols), std::pair(expected.rows, expected.cols));
  EXPECT_EQ(got.values, expected.values);
  EXPECT_EQ(got.scales, expected.scales);
  EXPECT_EQ(got.minimums, expected.minimums);
}

// Rows [first, last] of the whole, for every pair of them.
void expect_readable_in_parts(const MatrixSource& source) {
  const HostMatrix whole = read_rows(source);
  const RowBytes bytes = row_bytes(whole.format, whole.cols);
  for (std::int64_t first = 0; first <= whole.rows; ++first) {
    for (std::int64_t end = first; end <= whole.rows; ++end) {
      HostMatrix expected = make_matrix(whole.format, end - first, whole.cols);
      copy_cols(whole.format, rows_of(whole).from(first, bytes), whole.cols, {0, whole.cols},
                end - first, rows_of(expected));
      expect_equal(read_rows(source, {first, end}), expected);
    }
  }
}

TEST(MatrixSource, IsWhatItWasMadeOf) {
  for (const WeightFormat format : kWeightFormats) {
    const HostMatrix matrix = random_matrix(format, 5, 64, 1);
    expect_equal(read_rows(matrix), matrix);
    expect_readable_in_parts(matrix);
  }
  HostMatrix lacks = random_matrix(WeightFormat::kInt8Group, 5, 64, 1);
  lacks.scales.pop_back();
  EXPECT_THROW(MatrixSource{lacks}, FatalError);
  EXPECT_THROW(read_rows(fp32_matrix(2, 1, {0, 1}), {1, 3}), FatalError);
}

TEST(MatrixSource, TakesRowsInTheOrderOfTheRanges) {
  const HostMatrix matrix = fp32_matrix(4, 2, {0, 1, 10, 11, 20, 21, 30, 31});
  const std::vector<IndexRange> ranges = {{2, 4}, {1, 1}, {0, 1}};
  const MatrixSource taken = take_rows(matrix, ranges);
  EXPECT_EQ(taken.rows(), 3);
  EXPECT_THAT(to_fp32(taken), ElementsAre(20, 21, 30, 31, 0, 1));
  expect_readable_in_parts(taken);
  const std::vector<IndexRange> beyond = {{3, 5}};
  EXPECT_THROW(take_rows(matrix, beyond), FatalError);
}

TEST(MatrixSource, TakesColumnsWithTheirGroups) {
  for (const WeightFormat format : {WeightFormat::kInt4Group, WeightFormat::kInt8Group}) {
    const HostMatrix matrix = random_matrix(format, 3, 96, 2);
    const MatrixSource taken = take_cols(matrix, {32, 96});
    EXPECT_EQ(taken.cols(), 64);
    const std::vector<float> whole = to_fp32(matrix);
    const std::vector<float> values = to_fp32(taken);
    for (int r = 0; r < 3; ++r) {
      for (int k = 0; k < 64; ++k) EXPECT_EQ(values[r * 64 + k], whole[r * 96 + k + 32]);
    }
    expect_readable_in_parts(taken);
    EXPECT_THROW(take_cols(matrix, {16, 48}), FatalError);
    EXPECT_EQ(take_cols(matrix, {32, 32}).cols(), 0);
  }
}

TEST(MatrixSource, ColumnsOfInt8KeepTheirRowsScale) {
  HostMatrix matrix = make_matrix(WeightFormat::kInt8Channel, 2, 3);
  matrix.values = {std::byte{1}, std::byte{2}, std::byte{3},
                   std::byte{4}, std::byte{5}, std::byte{6}};
  const float scales[] = {1, 10};
  std::memcpy(matrix.scales.data(), scales, sizeof(scales));
  EXPECT_THAT(to_fp32(take_cols(matrix, {1, 3})), ElementsAre(2, 3, 50, 60));
}

TEST(MatrixSource, PutsRowsTogether) {
  const HostMatrix first = random_matrix(WeightFormat::kInt4Group, 2, 64, 3);
  const HostMatrix none = make_matrix(WeightFormat::kInt4Group, 0, 64);
  const HostMatrix last = random_matrix(WeightFormat::kInt4Group, 3, 64, 4);
  const MatrixSource whole = concat_rows({first, none, last});
  EXPECT_EQ(whole.rows(), 5);
  expect_equal(read_rows(whole, {0, 2}), first);
  expect_equal(read_rows(whole, {2, 5}), last);
  expect_readable_in_parts(whole);
  EXPECT_THROW(concat_rows({first, fp32_matrix(1, 1, {0})}), FatalError);
}

TEST(MatrixSource, ConvertsWhatIsRead) {
  const HostMatrix matrix = random_matrix(WeightFormat::kBf16, 4, 64, 5);
  for (const WeightFormat format : kWeightFormats) {
    const MatrixSource converted = convert(MatrixSource(matrix), format);
    expect_equal(read_rows(converted), convert(matrix, format));
    expect_readable_in_parts(converted);
  }
}

// What is asked for, and nothing before.
TEST(MatrixSource, ReadsRowsWhenTheyAreWanted) {
  std::vector<std::pair<std::int64_t, std::int64_t>> read;
  const MatrixSource source(WeightFormat::kFp32, 8, 2, [&](IndexRange rows, const RowSpace& to) {
    read.emplace_back(rows.begin, rows.end);
    std::memset(to.values, 0, static_cast<std::size_t>(rows.size()) * 8);
  });
  const std::vector<IndexRange> ranges = {{6, 8}, {0, 4}};
  const MatrixSource part =
      convert(take_cols(concat_rows({take_rows(source, ranges)}), {1, 2}), WeightFormat::kBf16);
  EXPECT_TRUE(read.empty());
  read_rows(part, {1, 3});
  EXPECT_THAT(read, ElementsAre(std::pair(7, 8), std::pair(0, 1)));
}

}  // namespace
}  // namespace paceline::kernels
