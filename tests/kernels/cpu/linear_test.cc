#include "kernels/cpu/linear.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/core/half.h"
#include "tests/kernels/cpu/products.h"
#include "tests/kernels/linear_cases.h"

namespace paceline::kernels::cpu {
namespace {

void expect_equal_products(const HostMatrix& matrix, const Reduction& reduction,
                           const std::vector<float>& in, std::int64_t rows) {
  const auto oracle = reference::pack(matrix, reduction);
  const std::vector<std::uint32_t> expected = bits(product(*oracle, in, rows, nullptr));
  for (const auto& [name, kernels, ops] : kernels_here()) {
    for (int threads : {1, 2}) {
      ThreadPool pool(threads);
      Linear linear(*kernels, *ops, pool);
      const auto packed = linear.pack(matrix, reduction);
      EXPECT_EQ(bits(product(*packed, in, rows, &linear)), expected)
          << name << ' ' << format_name(matrix.format) << " [" << matrix.rows << ", " << matrix.cols
          << "] rows " << rows << " threads " << threads;
    }
  }
}

class LinearFormats : public ::testing::TestWithParam<WeightFormat> {};

TEST_P(LinearFormats, EqualsTheReferenceForEveryNumberOfRows) {
  const HostMatrix matrix = random_matrix(GetParam(), 83, 192, 1);
  // Every height of a tile, and blocks of rows that are not all of one height.
  for (std::int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 15, 16, 17, 31, 33, 64}) {
    expect_equal_products(matrix, Reduction::whole(192), random_rows(rows, 192, 2), rows);
  }
}

TEST_P(LinearFormats, EqualsTheReferenceForEveryNumberOfOutputs) {
  for (std::int64_t n : {0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 49, 65, 100, 161}) {
    const HostMatrix matrix = random_matrix(GetParam(), n, 64, 3);
    // Tiles of few rows take one panel, of more two or four, of which the last may lack some.
    for (std::int64_t rows : {1, 3, 7, 8}) {
      expect_equal_products(matrix, Reduction::whole(64), random_rows(rows, 64, 4), rows);
    }
  }
}

TEST_P(LinearFormats, EqualsTheReferenceForEveryNumberOfInputs) {
  // In groups of 32 and 64, which tile products take up to four at a time.
  for (std::int64_t k = 32; k <= 320; k += 32) {
    const HostMatrix matrix = random_matrix(GetParam(), 33, k, 26);
    for (std::int64_t rows : {2, 17}) {
      expect_equal_products(matrix, Reduction::whole(k), random_rows(rows, k, 27), rows);
    }
  }
}

TEST_P(LinearFormats, CutsAndAddsAsTheReductionSays) {
  const std::int64_t k = 512;
  const HostMatrix matrix = random_matrix(GetParam(), 37, k, 5);
  for (const Reduction& reduction : reductions_of_512()) {
    for (std::int64_t rows : {1, 3, 8, 11, 18}) {
      expect_equal_products(matrix, reduction, random_rows(rows, k, 6), rows);
    }
  }
}

TEST_P(LinearFormats, NoInputsGiveZero) {
  const HostMatrix matrix = random_matrix(GetParam(), 20, 0, 7);
  expect_equal_products(matrix, Reduction::whole(0), {}, 2);
  ThreadPool pool(1);
  Linear linear(supported_isas().front(), pool);
  const auto packed = linear.pack(matrix, Reduction::whole(0));
  for (std::uint32_t value : bits(product(*packed, {}, 2, &linear))) EXPECT_EQ(value, 0u);
  EXPECT_TRUE(product(*packed, {}, 0, &linear).empty());
}

TEST_P(LinearFormats, ARowDoesNotDependOnItsCompany) {
  const HostMatrix matrix = random_matrix(GetParam(), 50, 128, 8);
  std::vector<float> in = random_rows(17, 128, 9);
  in[3 * 128 + 5] = std::numeric_limits<float>::quiet_NaN();
  for (const auto& [name, kernels, ops] : kernels_here()) {
    ThreadPool pool(2);
    Linear linear(*kernels, *ops, pool);
    const auto packed = linear.pack(matrix, Reduction::whole(128));
    const std::vector<float> together = product(*packed, in, 17, &linear);
    for (std::int64_t m = 0; m < 17; ++m) {
      const std::vector<float> row(in.begin() + m * 128, in.begin() + (m + 1) * 128);
      const std::vector<float> part(together.begin() + m * 50, together.begin() + (m + 1) * 50);
      EXPECT_EQ(bits(product(*packed, row, 1, &linear)), bits(part)) << name << ' ' << m;
    }
  }
}

TEST_P(LinearFormats, ExtremeInputsGiveTheSameBits) {
  const HostMatrix matrix = random_matrix(GetParam(), 21, 128, 10);
  const std::vector<float> in = extreme_rows(128, 11);
  expect_equal_products(matrix, Reduction::whole(128), in, std::ssize(in) / 128);
}

TEST_P(LinearFormats, ExtremeWeightsGiveTheSameBits) {
  // All bits set, or only the sign: -128 among the int8, NaN among the scales and the floats.
  for (std::byte fill : {std::byte{0x80}, std::byte{0x7f}, std::byte{0xff}, std::byte{0x00}}) {
    HostMatrix matrix = random_matrix(GetParam(), 18, 128, 12);
    std::fill(matrix.values.begin(), matrix.values.end(), fill);
    std::vector<float> in = random_rows(4, 128, 13);
    std::fill_n(in.begin(), 128, 1.0f);         // every activation 127
    std::fill_n(in.begin() + 128, 128, -1.0f);  // every activation -127
    expect_equal_products(matrix, Reduction::whole(128), in, 4);
  }
}

TEST_P(LinearFormats, EmbedWidensRowsOfTheTable) {
  const std::int64_t width = 96;
  HostMatrix table = random_matrix(GetParam(), 35, width, 14);
  const std::vector<std::int32_t> tokens = {100, 134, 99, 117, 135, 100, -1};
  const auto rows = static_cast<std::int64_t>(tokens.size());
  const std::vector<float> widened = to_fp32(table);
  std::vector<float> expected(static_cast<std::size_t>(rows * width), 0.0f);
  for (std::int64_t m = 0; m < rows; ++m) {
    const int row = tokens[m] - 100;
    if (row < 0 || row >= 35) continue;
    for (std::int64_t k = 0; k < width; ++k)
      expected[m * width + k] = widened[row * width + k] + 0.0f;
  }
  const auto embedded = [&](const PackedMatrix& packed, Linear* linear) {
    std::vector<float> out(static_cast<std::size_t>(rows * width), 12345.0f);
    const EmbedParams params{&packed, tokens.data(), 100, out.data(), rows};
    linear != nullptr ? linear->embed(params) : reference::embed(params);
    return bits(out);
  };
  EXPECT_EQ(embedded(*reference::pack(table, Reduction::whole(width)), nullptr), bits(expected));
  for (Isa isa : supported_isas()) {
    ThreadPool pool(2);
    Linear linear(isa, pool);
    EXPECT_EQ(embedded(*linear.pack(table, Reduction::whole(width)), &linear), bits(expected));
  }
}

INSTANTIATE_TEST_SUITE_P(, LinearFormats, ::testing::ValuesIn(kWeightFormats),
                         [](const auto& tested) { return std::string(format_name(tested.param)); });

TEST(Linear, LastGroupOfInt8MayBeShort) {
  for (std::int64_t k : {1, 31, 63, 65, 100, 127}) {
    expect_equal_products(random_matrix(WeightFormat::kInt8Channel, 19, k, 20), Reduction::whole(k),
                          random_rows(5, k, 21), 5);
  }
  for (std::int64_t rows : {5, 16}) {
    expect_equal_products(random_matrix(WeightFormat::kInt8Channel, 19, 100, 20),
                          cut({64, 100}, {0, 0}), random_rows(rows, 100, 21), rows);
  }
}

// Few rows and many lie differently in the same memory, and leave it to each other as it is.
TEST(Linear, ProductsOfFewRowsAndOfManyTakeTurns) {
  for (const auto& [name, kernels, ops] : kernels_here()) {
    LinearKernels from_sixteen = *kernels;
    if (from_sixteen.tiles != nullptr) from_sixteen.tiles_from = 16;
    ThreadPool pool(2);
    Linear linear(from_sixteen, *ops, pool);
    for (WeightFormat format : kWeightFormats) {
      const HostMatrix matrix = random_matrix(format, 40, 192, 28);
      const auto oracle = reference::pack(matrix, Reduction::whole(192));
      const auto packed = linear.pack(matrix, Reduction::whole(192));
      for (std::int64_t rows : {64, 15, 33, 1, 16, 9, 17}) {
        const std::vector<float> in = random_rows(rows, 192, 29);
        EXPECT_EQ(bits(product(*packed, in, rows, &linear)),
                  bits(product(*oracle, in, rows, nullptr)))
            << name << ' ' << format_name(format) << " rows " << rows;
      }
    }
  }
}

TEST(Linear, FloatSegmentsMayEndAnywhere) {
  for (WeightFormat format :
       {WeightFormat::kFp32, WeightFormat::kBf16, WeightFormat::kFp16, WeightFormat::kFp8}) {
    expect_equal_products(random_matrix(format, 40, 77, 22), cut({5, 36, 77}, {0, 1, 1}),
                          random_rows(9, 77, 23), 9);
  }
}

HostMatrix bf16_row(const std::vector<float>& values) {
  HostMatrix matrix{WeightFormat::kBf16, 1, std::ssize(values), {}, {}, {}};
  for (float value : values) {
    const std::uint16_t half = fp32_to_bf16(value);
    matrix.values.push_back(static_cast<std::byte>(half & 255));
    matrix.values.push_back(static_cast<std::byte>(half >> 8));
  }
  return matrix;
}

// On every instruction set, with or without one for bf16.
TEST(Linear, WorkedExamplesOfBf16) {
  const auto expect = [](const std::vector<float>& in, const std::vector<float>& weights,
                         float expected) {
    const HostMatrix matrix = bf16_row(weights);
    const Reduction whole = Reduction::whole(matrix.cols);
    const auto packed = reference::pack(matrix, whole);
    EXPECT_EQ(bits(product(*packed, in, 1, nullptr)), bits({expected}));
    expect_equal_products(matrix, whole, in, 1);
  };
  expect({1 + 0x1p-9f, 2}, {1, 3}, 7);  // activations are rounded
  // Ascending within a pair: 2^-24 + 1 + 2^-24, where each addition to 1 is lost.
  expect({0, 0x1p-24f, 1, 0x1p-24f}, {1, 1, 1, 1}, 1);
  expect({0x1p-63f, 0x1p-63f}, {0x1p-64f, 0x1p-64f}, 0);  // each product is flushed
  expect({0x1p-63f, -0x1p-63f, 0x1p-63f}, {0x1p-63f, 0x1.8p-63f, 0x1p-63f}, 0x1p-126f);
  expect({0x1p-63f}, {-0x1p-64f}, -0.0f);  // nothing is added where there is no second input
}

TEST(Linear, SumsOfBf16ThatVanishAreFlushedAlike) {
  HostMatrix matrix = random_matrix(WeightFormat::kBf16, 40, 77, 30);
  for (std::size_t i = 0; i < matrix.values.size(); i += 2) {
    std::uint16_t half;
    std::memcpy(&half, matrix.values.data() + i, 2);
    half = fp32_to_bf16(bf16_to_fp32(half) * 0x1p-60f);
    std::memcpy(matrix.values.data() + i, &half, 2);
  }
  std::vector<float> in = random_rows(9, 77, 31);
  for (float& value : in) value *= 0x1p-62f;
  expect_equal_products(matrix, Reduction::whole(77), in, 9);
  // A segment's sum may be -0, and two of them may add up to a denormal, which is kept.
  expect_equal_products(matrix, cut({1, 2, 5, 6, 36, 77}, {0, 1, 0, 1, 1, 1}), in, 9);
}

TEST(Linear, WorkedExampleOfInt4) {
  const HostMatrix matrix = int4_example();
  const std::vector<float> in = int4_example_row();
  const auto packed = reference::pack(matrix, Reduction::whole(32));
  EXPECT_EQ(product(*packed, in, 1, nullptr), std::vector<float>{kInt4ExampleResult});
  expect_equal_products(matrix, Reduction::whole(32), in, 1);
}

TEST(Linear, RefusesAReductionThatDoesNotFitTheMatrix) {
  ThreadPool pool(1);
  Linear linear(supported_isas().front(), pool);
  const HostMatrix matrix = random_matrix(WeightFormat::kInt4Group, 3, 64, 24);
  for (const Reduction& bad :
       {cut({32}, {0}), cut({32, 96}, {0, 0}), cut({16, 64}, {0, 0}), cut({32, 64}, {1, 0}),
        cut({64, 32, 64}, {0, 0, 0}), cut({32, 64}, {0, 2})}) {
    EXPECT_THROW(linear.pack(matrix, bad), FatalError);
    EXPECT_THROW(reference::pack(matrix, bad), FatalError);
  }
}

TEST(Linear, RefusesAnotherBackendsMatrix) {
  ThreadPool pool(1);
  Linear linear(supported_isas().front(), pool);
  const HostMatrix matrix = random_matrix(WeightFormat::kFp32, 3, 4, 25);
  const std::vector<float> in(4);
  const auto foreign = reference::pack(matrix, Reduction::whole(4));
  EXPECT_THROW(product(*foreign, in, 1, &linear), FatalError);
  const auto own = linear.pack(matrix, Reduction::whole(4));
  EXPECT_THROW(product(*own, in, 1, nullptr), FatalError);
}

}  // namespace
}  // namespace paceline::kernels::cpu
