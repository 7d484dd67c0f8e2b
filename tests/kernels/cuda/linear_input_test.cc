#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "tests/kernels/cuda/products.h"
#include "tests/kernels/linear_inputs.h"

// What `linear` does to its rows first: the bits of separate ops; run on the CPU in several orders.

namespace paceline::kernels {
namespace {

void expect_bits_of_separate_ops(const HostMatrix& matrix, const Reduction& reduction,
                                 std::int64_t rows, unsigned seed) {
  const cuda::DeviceMatrix weight = packed(matrix, reduction);
  for (const StagedRows& staged : every_input(rows, matrix.cols, seed)) {
    SCOPED_TRACE(staged.name());
    const bool sums = !staged.merges.empty();
    const bool in_place = staged.merges.size() % 2 == 1;
    Floats expected_sum(static_cast<std::size_t>(rows * matrix.cols));
    const Floats multiplied = staged.multiplied(expected_sum);
    in_every_order([&] {
      Floats sum = in_place ? staged.in : Floats(expected_sum.size(), 12345.0f);
      const Floats got =
          product(weight, in_place ? sum : staged.in, rows, staged.input(sum.data()));
      expect_product(got, matrix, reduction, multiplied, rows);
      if (sums) expect_same_bits(sum, expected_sum);
    });
  }
}

class CudaLinearInput : public ::testing::TestWithParam<WeightFormat> {};

TEST_P(CudaLinearInput, GivesTheBitsOfSeparateOps) {
  const HostMatrix matrix = random_matrix(GetParam(), 21, 192, 1);
  for (const std::int64_t rows : {0, 1, 7, 9}) {
    expect_bits_of_separate_ops(matrix, Reduction::whole(192), rows, 2);
  }
}

// More elements than a block has threads, and than stand in shared memory at a time; SiLU's are
// shared by several blocks.
TEST_P(CudaLinearInput, LongRows) {
  constexpr std::int64_t kCols = 8192 + 320;
  expect_bits_of_separate_ops(random_matrix(GetParam(), 3, kCols, 3), cut({2048, kCols}, {0, 1}), 1,
                              4);
}

TEST_P(CudaLinearInput, ManyRows) {
  expect_bits_of_separate_ops(random_matrix(GetParam(), 5, 64, 5), Reduction::whole(64), 70, 6);
}

// A rank without columns has nothing to multiply, but the same stream as the others.
TEST_P(CudaLinearInput, WithoutOutputsTheSumIsStillWritten) {
  expect_bits_of_separate_ops(random_matrix(GetParam(), 0, 96, 7), Reduction::whole(96), 3, 8);
}

TEST_P(CudaLinearInput, NoColumns) {
  expect_bits_of_separate_ops(random_matrix(GetParam(), 5, 0, 9), Reduction::whole(0), 2, 10);
}

INSTANTIATE_TEST_SUITE_P(, CudaLinearInput, ::testing::ValuesIn(kWeightFormats),
                         [](const auto& tested) { return std::string(format_name(tested.param)); });

TEST(CudaLinearInputs, OddNumbersOfColumns) {
  for (const std::int64_t cols : {1, 15, 31, 77, 100}) {
    for (const WeightFormat format :
         {WeightFormat::kFp32, WeightFormat::kBf16, WeightFormat::kInt8Channel}) {
      expect_bits_of_separate_ops(random_matrix(format, 5, cols, 11), Reduction::whole(cols), 4,
                                  12);
    }
  }
}

TEST(CudaLinearInputs, RefusesMergesThatDoNotAddUp) {
  const cuda::DeviceMatrix weight =
      packed(random_matrix(WeightFormat::kFp32, 3, 4, 13), Reduction::whole(4));
  for (const std::vector<int>& merges : {std::vector<int>{0, 0}, {1}, {0, 2}, {0, -1}, {}}) {
    StagedRows staged = every_input(1, 4, 14).back();
    staged.merges = merges;
    Floats sum(4);
    EXPECT_THROW(product(weight, staged.in, 1, staged.input(sum.data())), FatalError);
  }
}

}  // namespace
}  // namespace paceline::kernels
