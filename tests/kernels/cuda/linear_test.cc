#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "tests/kernels/cuda/products.h"

// The product kernels against the reference; run on the CPU in several orders.

namespace paceline::kernels {
namespace {

void expect_equal_products(const HostMatrix& matrix, const Reduction& reduction, const Floats& in,
                           std::int64_t rows) {
  SCOPED_TRACE("[" + std::to_string(matrix.rows) + ", " + std::to_string(matrix.cols) + "], rows " +
               std::to_string(rows));
  const cuda::DeviceMatrix weight = packed(matrix, reduction);
  in_every_order([&] { expect_product(product(weight, in, rows), matrix, reduction, in, rows); });
}

class CudaLinear : public ::testing::TestWithParam<WeightFormat> {};

TEST_P(CudaLinear, EqualsTheReferenceForEveryNumberOfRows) {
  const HostMatrix matrix = random_matrix(GetParam(), 83, 192, 1);
  // Blocks of 8, 16, 32 and 64 rows, full and not, and more than one.
  for (const std::int64_t rows : {1, 2, 7, 8, 9, 16, 17, 33, 64, 65, 130}) {
    expect_equal_products(matrix, Reduction::whole(192), random_rows(rows, 192, 2), rows);
  }
}

TEST_P(CudaLinear, EqualsTheReferenceForEveryNumberOfOutputs) {
  for (const std::int64_t n : {0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 161}) {
    const HostMatrix matrix = random_matrix(GetParam(), n, 64, 3);
    for (const std::int64_t rows : {1, 9}) {
      expect_equal_products(matrix, Reduction::whole(64), random_rows(rows, 64, 4), rows);
    }
  }
}

TEST_P(CudaLinear, CutsAndAddsAsTheReductionSays) {
  const HostMatrix matrix = random_matrix(GetParam(), 37, 512, 5);
  for (const Reduction& reduction : reductions_of_512()) {
    for (const std::int64_t rows : {1, 11}) {
      expect_equal_products(matrix, reduction, random_rows(rows, 512, 6), rows);
    }
  }
}

// More than the stages that shared memory holds, so that each is used again; the last is not full.
TEST_P(CudaLinear, ManySteps) {
  constexpr std::int64_t kCols = 2144;
  const HostMatrix matrix = random_matrix(GetParam(), 19, kCols, 7);
  for (const std::int64_t rows : {1, 12, 20, 40}) {
    expect_equal_products(matrix, cut({1984, kCols}, {0, 0}), random_rows(rows, kCols, 8), rows);
  }
}

// Where there are many panels and segments two or four warps share a block; the last block's lack
// some: 65 panels times 8 segments, 131 times 8.
TEST_P(CudaLinear, SeveralWarpsShareABlock) {
  const Reduction eight = cut({64, 64, 64, 64, 64, 128, 192, 256}, {0, 1, 0, 2, 0, 1, 0, 3});
  expect_equal_products(random_matrix(GetParam(), 1035, 256, 9), eight, random_rows(10, 256, 10),
                        10);
  expect_equal_products(random_matrix(GetParam(), 2090, 256, 9), eight, random_rows(3, 256, 11), 3);
}

// Where there is enough to do for that, a block takes 128 rows and two panels a warp: 13 panels are
// 2 blocks of 4 warps, the last warp with one; times 64 segments, of which most are empty.
TEST_P(CudaLinear, LargeBlocksOfManyRows) {
  std::vector<std::int64_t> ends(64, 128);
  std::vector<int> merges(64, 1);
  ends[0] = 64;
  merges[0] = 0;
  for (const std::int64_t rows : {65, 130}) {
    expect_equal_products(random_matrix(GetParam(), 200, 128, 9), cut(ends, merges),
                          random_rows(rows, 128, 10), rows);
  }
}

TEST_P(CudaLinear, NoInputsGiveZero) {
  const HostMatrix matrix = random_matrix(GetParam(), 20, 0, 12);
  const cuda::DeviceMatrix weight = packed(matrix, Reduction::whole(0));
  for (const float value : product(weight, {}, 2)) {
    EXPECT_EQ(std::bit_cast<std::uint32_t>(value), 0u);
  }
  EXPECT_TRUE(product(weight, {}, 0).empty());
}

// However many come with it, and whatever they are.
TEST_P(CudaLinear, ARowDoesNotDependOnItsCompany) {
  constexpr std::int64_t kOutputs = 50, kCols = 128, kRows = 65;
  Floats in = random_rows(kRows, kCols, 13);
  in[3 * kCols + 5] = std::numeric_limits<float>::quiet_NaN();
  const cuda::DeviceMatrix weight =
      packed(random_matrix(GetParam(), kOutputs, kCols, 14), Reduction::whole(kCols));
  const Floats together = product(weight, in, kRows);
  for (const std::int64_t count : {1, 2, 8, 9, 16, 17, 32, 33, 64}) {
    for (const std::int64_t first : {std::int64_t{0}, kRows - count}) {
      const Floats some(in.begin() + first * kCols, in.begin() + (first + count) * kCols);
      expect_same_bits(product(weight, some, count),
                       Floats(together.begin() + first * kOutputs,
                              together.begin() + (first + count) * kOutputs));
    }
  }
}

TEST_P(CudaLinear, ExtremeInputsGiveTheSameBits) {
  const Floats in = extreme_rows(128, 15);
  expect_equal_products(random_matrix(GetParam(), 21, 128, 16), Reduction::whole(128), in,
                        std::ssize(in) / 128);
}

TEST_P(CudaLinear, ExtremeWeightsGiveTheSameBits) {
  // All bits set, or only the sign: -128 among the int8, NaN among the scales and the floats.
  for (const std::byte fill : {std::byte{0x80}, std::byte{0x7f}, std::byte{0xff}, std::byte{0}}) {
    HostMatrix matrix = random_matrix(GetParam(), 18, 128, 17);
    std::fill(matrix.values.begin(), matrix.values.end(), fill);
    Floats in = random_rows(4, 128, 18);
    std::fill_n(in.begin(), 128, 1.0f);         // every activation 127
    std::fill_n(in.begin() + 128, 128, -1.0f);  // every activation -127
    expect_equal_products(matrix, Reduction::whole(128), in, 4);
  }
}

INSTANTIATE_TEST_SUITE_P(, CudaLinear, ::testing::ValuesIn(kWeightFormats),
                         [](const auto& tested) { return std::string(format_name(tested.param)); });

TEST(CudaLinearInt8, LastGroupMayBeShort) {
  for (const std::int64_t k : {1, 31, 63, 65, 100, 127}) {
    expect_equal_products(random_matrix(WeightFormat::kInt8Channel, 19, k, 20), Reduction::whole(k),
                          random_rows(5, k, 21), 5);
  }
  expect_equal_products(random_matrix(WeightFormat::kInt8Channel, 19, 100, 20),
                        cut({64, 100, 100}, {0, 0, 0}), random_rows(5, 100, 21), 5);
}

TEST(CudaLinearFloats, SegmentsMayEndAnywhere) {
  for (const WeightFormat format :
       {WeightFormat::kFp32, WeightFormat::kBf16, WeightFormat::kFp16, WeightFormat::kFp8}) {
    expect_equal_products(random_matrix(format, 40, 77, 22), cut({5, 36, 77}, {0, 1, 1}),
                          random_rows(9, 77, 23), 9);
  }
}

// What fills the step up is -0: added, +0 would turn a sum that has vanished from below into +0.
TEST(CudaLinearFloats, ASumOfMinusZeroStaysSo) {
  const Floats in = {1e-30f};
  HostMatrix minus{WeightFormat::kFp32, 1, 1, {}, {}, {}};
  const float value = -1e-30f;
  minus.values.resize(sizeof(value));
  std::memcpy(minus.values.data(), &value, sizeof(value));
  for (const WeightFormat format : {WeightFormat::kFp32, WeightFormat::kBf16}) {
    const Floats out = product(packed(convert(minus, format), Reduction::whole(1)), in, 1);
    if (kOnGpu && format == WeightFormat::kBf16) {
      EXPECT_EQ(out.at(0), 0.0f);  // the sign is the tensor core's own
    } else {
      EXPECT_TRUE(same_bits(out.at(0), -0.0f));
    }
  }
}

TEST(CudaLinearFloats, ActivationsAreRoundedToTheWeights) {
  // 1 + 2^-9 is between the bf16 1 and 1 + 2^-7; 1 + 2^-12 between the fp16 1 and 1 + 2^-10.
  const auto one = [](WeightFormat format, std::uint8_t high, std::uint8_t low) {
    return packed({format, 1, 1, {std::byte{low}, std::byte{high}}, {}, {}}, Reduction::whole(1));
  };
  EXPECT_EQ(product(one(WeightFormat::kBf16, 0x3f, 0x80), {1.001953125f}, 1), Floats{1});
  EXPECT_EQ(product(one(WeightFormat::kFp16, 0x3c, 0x00), {1.000244140625f}, 1), Floats{1});
  EXPECT_EQ(product(one(WeightFormat::kFp16, 0x3c, 0x00), {1e5f}, 1),
            Floats{std::numeric_limits<float>::infinity()});
}

// Divided by 16 they fit fp16: 100,000 does, to the nearest multiple of 64, and a million.
TEST(CudaLinearFloats, Fp8sActivationsReachAMillion) {
  HostMatrix one = make_matrix(WeightFormat::kFp8, 1, 1);
  one.values[0] = std::byte{0x38};
  const float scale = 0.5f;
  std::memcpy(one.scales.data(), &scale, sizeof(scale));
  const cuda::DeviceMatrix weight = packed(one, Reduction::whole(1));
  EXPECT_EQ(product(weight, {1.0f + 0x1p-11f}, 1), Floats{0.5f});
  EXPECT_EQ(product(weight, {1e5f}, 1), Floats{49984.0f});
  EXPECT_EQ(product(weight, {1048064.0f}, 1), Floats{524032.0f});
  EXPECT_EQ(product(weight, {1.1e6f}, 1), Floats{std::numeric_limits<float>::infinity()});
}

TEST(CudaLinearInt4, WorkedExample) {
  const cuda::DeviceMatrix weight = packed(int4_example(), Reduction::whole(32));
  EXPECT_EQ(product(weight, int4_example_row(), 1), Floats{kInt4ExampleResult});
}

TEST(CudaLinearErrors, RefusesAnotherBackendsMatrixAndTooLittleMemory) {
  const HostMatrix matrix = random_matrix(WeightFormat::kFp32, 3, 4, 25);
  const Floats in(4);
  Floats out(3);
  const auto foreign = reference::pack(matrix, Reduction::whole(4));
  EXPECT_THROW(cuda::linear_workspace_bytes(*foreign, 1), FatalError);
  EXPECT_THROW(cuda::linear({foreign.get(), in.data(), out.data(), 1}, {}, nullptr), FatalError);
  const cuda::DeviceMatrix own = packed(matrix, Reduction::whole(4));
  std::vector<std::byte> workspace(cuda::linear_workspace_bytes(own, 1) - 1);
  EXPECT_THROW(cuda::linear({&own, in.data(), out.data(), 1}, workspace, nullptr), FatalError);
}

}  // namespace
}  // namespace paceline::kernels
