#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "tests/kernels/cpu/products.h"
#include "tests/kernels/linear_cases.h"
#include "tests/kernels/linear_inputs.h"

// What `linear` does to its rows first: the bits of separate ops.

namespace paceline::kernels::cpu {
namespace {

/// The product and the sum, which half of the cases write over what it is added to.
struct Result {
  std::vector<std::uint32_t> product, sum;
  bool operator==(const Result&) const = default;
};
Result staged_product(const StagedRows& staged, const PackedMatrix& weight, Linear* linear) {
  const bool in_place = staged.merges.size() % 2 == 1;
  std::vector<float> sum(static_cast<std::size_t>(staged.rows * staged.cols), 12345.0f);
  if (in_place) sum = staged.in;
  const std::vector<float> out =
      product(weight, in_place ? sum : staged.in, staged.rows, linear, staged.input(sum.data()));
  return {bits(out), staged.merges.empty() ? std::vector<std::uint32_t>{} : bits(sum)};
}

Result separate_product(const StagedRows& staged, const PackedMatrix& weight) {
  std::vector<float> sum(static_cast<std::size_t>(staged.rows * staged.cols));
  const std::vector<float> rows = staged.multiplied(sum);
  return {bits(product(weight, rows, staged.rows, nullptr)),
          staged.merges.empty() ? std::vector<std::uint32_t>{} : bits(sum)};
}

void expect_bits_of_separate_ops(const HostMatrix& matrix, const Reduction& reduction,
                                 std::int64_t rows, unsigned seed) {
  const auto oracle = reference::pack(matrix, reduction);
  const std::vector<StagedRows> inputs = every_input(rows, matrix.cols, seed);
  std::vector<Result> expected;
  for (const StagedRows& staged : inputs) {
    SCOPED_TRACE(staged.name());
    expected.push_back(separate_product(staged, *oracle));
    EXPECT_EQ(staged_product(staged, *oracle, nullptr), expected.back());
  }
  for (const auto& [name, kernels, ops] : kernels_here()) {
    for (const int threads : {1, 3}) {
      ThreadPool pool(threads);
      Linear linear(*kernels, *ops, pool);
      const auto packed = linear.pack(matrix, reduction);
      for (std::size_t i = 0; i < inputs.size(); ++i) {
        EXPECT_EQ(staged_product(inputs[i], *packed, &linear), expected[i])
            << name << ' ' << format_name(matrix.format) << ' ' << inputs[i].name() << ", threads "
            << threads;
      }
    }
  }
}

class LinearInputFormats : public ::testing::TestWithParam<WeightFormat> {};

TEST_P(LinearInputFormats, GivesTheBitsOfSeparateOps) {
  const HostMatrix matrix = random_matrix(GetParam(), 21, 192, 1);
  for (const std::int64_t rows : {0, 1, 2, 8, 9, 16, 17, 33}) {
    expect_bits_of_separate_ops(matrix, Reduction::whole(192), rows, 2);
  }
}

// Rows that several threads share: SiLU's by their columns where there are fewer rows than threads.
TEST_P(LinearInputFormats, LongRows) {
  const std::int64_t cols = 16384 + 64;
  const HostMatrix matrix = random_matrix(GetParam(), 3, cols, 3);
  for (const std::int64_t rows : {1, 2, 5}) {
    expect_bits_of_separate_ops(matrix, cut({8192, cols}, {0, 0}), rows, 4);
  }
}

// A rank without columns has nothing to multiply, but the same stream as the others.
TEST_P(LinearInputFormats, WithoutOutputsTheSumIsStillWritten) {
  expect_bits_of_separate_ops(random_matrix(GetParam(), 0, 96, 5), Reduction::whole(96), 3, 6);
}

TEST_P(LinearInputFormats, NoColumns) {
  expect_bits_of_separate_ops(random_matrix(GetParam(), 5, 0, 7), Reduction::whole(0), 2, 8);
}

INSTANTIATE_TEST_SUITE_P(, LinearInputFormats, ::testing::ValuesIn(kWeightFormats),
                         [](const auto& tested) { return std::string(format_name(tested.param)); });

TEST(LinearInput, OddNumbersOfColumns) {
  for (const std::int64_t cols : {1, 15, 31, 77, 100}) {
    for (const WeightFormat format : {WeightFormat::kFp32, WeightFormat::kBf16, WeightFormat::kFp16,
                                      WeightFormat::kInt8Channel}) {
      expect_bits_of_separate_ops(random_matrix(format, 5, cols, 9), Reduction::whole(cols), 4, 10);
    }
  }
}

// x = (1, 2) + (1, 1) + (1, 1), its norm times the weights (1, 1).
TEST(LinearInput, WorkedExample) {
  const HostMatrix ones = [] {
    HostMatrix matrix{WeightFormat::kFp32, 1, 2, std::vector<std::byte>(8), {}, {}};
    const float values[] = {1, 1};
    std::memcpy(matrix.values.data(), values, sizeof(values));
    return matrix;
  }();
  const StagedRows staged{.kind = LinearInput::Kind::kSumRmsNorm,
                          .rows = 1,
                          .cols = 2,
                          .in = {1, 2},
                          .norm = {1, 2},
                          .partials = {1, 1, 1, 1},
                          .merges = {0, 1}};
  std::vector<float> sum(2);
  const auto weight = reference::pack(ones, Reduction::whole(2));
  const float scale = 1.0f / std::sqrt(25.0f / 2 + 1e-5f);
  EXPECT_EQ(product(*weight, staged.in, 1, nullptr, staged.input(sum.data())),
            (std::vector<float>{3 * scale + 4 * scale * 2}));
  EXPECT_EQ(sum, (std::vector<float>{3, 4}));
}

TEST(LinearInput, RefusesMergesThatDoNotAddUp) {
  ThreadPool pool(1);
  Linear linear(supported_isas().front(), pool);
  const HostMatrix matrix = random_matrix(WeightFormat::kFp32, 3, 4, 11);
  const auto own = linear.pack(matrix, Reduction::whole(4));
  const auto oracle = reference::pack(matrix, Reduction::whole(4));
  for (const std::vector<int>& merges : {std::vector<int>{0, 0}, {1}, {0, 2}, {0, -1}, {}}) {
    StagedRows staged = every_input(1, 4, 12).back();
    staged.merges = merges;
    std::vector<float> sum(4);
    const LinearInput input = staged.input(sum.data());
    EXPECT_THROW(product(*own, staged.in, 1, &linear, input), FatalError);
    EXPECT_THROW(product(*oracle, staged.in, 1, nullptr, input), FatalError);
  }
}

}  // namespace
}  // namespace paceline::kernels::cpu
