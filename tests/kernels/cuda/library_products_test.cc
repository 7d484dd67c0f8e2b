#include "kernels/cuda/library_products.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <test_device.h>

#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "kernels/core/device_memory.h"
#include "kernels/core/error.h"
#include "kernels/core/half.h"
#include "kernels/cuda/backend.h"
#include "kernels/reference/linear.h"
#include "tests/kernels/every_cpu.h"
#include "tests/kernels/linear_cases.h"
#include "tests/kernels/linear_inputs.h"

// --numerics fast: products by cuBLASLt. On the CPU fake_cublaslt.cc multiplies, from the last
// input to the first, and the tests compare with `==`; on a GPU the library, within a bound.

namespace paceline::kernels {
namespace {

using Floats = std::vector<float>;

constexpr WeightFormat kLibraryFormats[] = {WeightFormat::kBf16, WeightFormat::kFp16};

class CudaLibraryProducts : public testing::Test {
 protected:
  void SetUp() override {
    if (!cuda::cublaslt_missing().empty()) GTEST_SKIP() << cuda::cublaslt_missing();
    backend_ = make_cuda_backend({.fast = true});
  }

  Floats product(const PackedMatrix& weight, const Floats& in, std::int64_t rows) {
    return product(*backend_, weight, in, rows);
  }
  /// Outputs begin as something that shows where it is not written, and have more of it behind
  /// them.
  static Floats product(Backend& backend, const PackedMatrix& weight, const Floats& in,
                        std::int64_t rows, const LinearInput& input = {}) {
    constexpr std::size_t kBehind = 64;
    constexpr float kUnwritten = 12345.0f;
    Floats out(
        static_cast<std::size_t>(weight.reduction().outputs() * rows * weight.rows()) + kBehind,
        kUnwritten);
    Buffer device_in = backend.allocate(in.size() * sizeof(float));
    Buffer device_out = backend.allocate(out.size() * sizeof(float));
    backend.upload(device_in.as<float>(), in.data(), in.size() * sizeof(float));
    backend.upload(device_out.as<float>(), out.data(), out.size() * sizeof(float));
    backend.linear({&weight, device_in.as<float>(), device_out.as<float>(), rows, input});
    backend.download(out.data(), device_out.as<float>(), out.size() * sizeof(float));
    EXPECT_THAT(std::vector<float>(out.end() - kBehind, out.end()), testing::Each(kUnwritten));
    out.resize(out.size() - kBehind);
    return out;
  }

  void expect_products(const HostMatrix& matrix, const Reduction& reduction, const Floats& in,
                       std::int64_t rows);

  std::unique_ptr<Backend> backend_;
};

float rounded(float value, WeightFormat format) {
  return format == WeightFormat::kBf16 ? bf16_to_fp32(fp32_to_bf16(value))
                                       : fp16_to_fp32(fp32_to_fp16(value));
}

/// The sum over some columns from the last to the first, and how far from it a sum in another order
/// may be: one more rounding of 2^-23 for each input, and as much again for this one's.
struct Expected {
  float sum = 0;
  double bound = 0;
};
Expected expected_sum(const float* weight, const float* in, IndexRange cols, WeightFormat format) {
  Expected expected;
  double magnitudes = 0;
  for (std::int64_t k = cols.end - 1; k >= cols.begin; --k) {
    const float x = rounded(in[k], format);
    expected.sum = std::fma(x, weight[k], expected.sum);
    magnitudes += std::fabs(double{x} * weight[k]);
  }
  expected.bound = 0x1p-22 * static_cast<double>(cols.size()) * magnitudes + 0x1p-126;
  return expected;
}

void CudaLibraryProducts::expect_products(const HostMatrix& matrix, const Reduction& reduction,
                                          const Floats& in, std::int64_t rows) {
  SCOPED_TRACE(std::string(format_name(matrix.format)) + " [" + std::to_string(matrix.rows) + ", " +
               std::to_string(matrix.cols) + "], rows " + std::to_string(rows));
  const auto weight = backend_->pack(matrix, reduction);
  const Floats got = product(*weight, in, rows);
  const Floats all = to_fp32(matrix);
  std::size_t i = 0;
  for (const IndexRange& cols : cuda::output_columns(reduction)) {
    for (std::int64_t m = 0; m < rows; ++m) {
      for (std::int64_t n = 0; n < matrix.rows; ++n, ++i) {
        const Expected expected = expected_sum(all.data() + n * matrix.cols,
                                               in.data() + m * matrix.cols, cols, matrix.format);
        if (kOnGpu) {
          ASSERT_LE(std::fabs(double{got.at(i)} - expected.sum), expected.bound) << "element " << i;
        } else {
          ASSERT_EQ(got.at(i), expected.sum) << "element " << i;
        }
      }
    }
  }
  EXPECT_EQ(i, got.size());
}

TEST_F(CudaLibraryProducts, EveryNumberOfRows) {
  for (const WeightFormat format : kLibraryFormats) {
    for (const std::int64_t rows : {1, 2, 7, 8, 17, 64, 130}) {
      expect_products(random_matrix(format, 83, 192, 1), Reduction::whole(192),
                      random_rows(rows, 192, 2), rows);
    }
  }
}

// Rows of a matrix begin at multiples of 8 elements whatever its columns, segments anywhere.
TEST_F(CudaLibraryProducts, EveryNumberOfInputsAndOutputs) {
  for (const WeightFormat format : kLibraryFormats) {
    for (const std::int64_t cols : {1, 7, 8, 9, 77}) {
      for (const std::int64_t outputs : {1, 8, 19}) {
        expect_products(random_matrix(format, outputs, cols, 3), Reduction::whole(cols),
                        random_rows(5, cols, 4), 5);
      }
    }
    expect_products(random_matrix(format, 40, 77, 5), cut({5, 36, 77}, {0, 0, 0}),
                    random_rows(9, 77, 6), 9);
  }
}

// One product for each output, over the columns of all segments that are merged into it.
TEST_F(CudaLibraryProducts, CutsAsTheReductionSays) {
  for (const Reduction& reduction : reductions_of_512()) {
    for (const std::int64_t rows : {1, 11}) {
      expect_products(random_matrix(WeightFormat::kBf16, 37, 512, 7), reduction,
                      random_rows(rows, 512, 8), rows);
    }
  }
}

TEST(CudaOutputColumns, AreThoseOfTheMergedSegments) {
  const auto columns = [](const std::vector<std::int64_t>& ends, const std::vector<int>& merges) {
    return cuda::output_columns(cut(ends, merges));
  };
  using testing::ElementsAre;
  EXPECT_THAT(columns({4, 6, 10}, {0, 1, 0}), ElementsAre(IndexRange{0, 6}, IndexRange{6, 10}));
  EXPECT_THAT(columns({64, 128, 192, 512}, {0, 0, 0, 3}), ElementsAre(IndexRange{0, 512}));
  EXPECT_THAT(columns({0, 5, 5}, {0, 0, 0}),
              ElementsAre(IndexRange{0, 0}, IndexRange{0, 5}, IndexRange{5, 5}));
  EXPECT_THAT(columns({}, {}), ElementsAre());
}

TEST_F(CudaLibraryProducts, NoInputsGiveZero) {
  const Reduction empty_first = cut({0, 16}, {0, 0});
  const auto weight = backend_->pack(random_matrix(WeightFormat::kBf16, 20, 16, 9), empty_first);
  const Floats out = product(*weight, random_rows(3, 16, 10), 3);
  for (int i = 0; i < 60; ++i) EXPECT_TRUE(same_bits(out.at(i), 0.0f));
  const auto nothing =
      backend_->pack(random_matrix(WeightFormat::kFp16, 20, 0, 11), Reduction::whole(0));
  for (const float value : product(*nothing, {}, 2)) EXPECT_TRUE(same_bits(value, 0.0f));
  EXPECT_TRUE(product(*weight, {}, 0).empty());
  const auto no_outputs =
      backend_->pack(random_matrix(WeightFormat::kFp16, 0, 16, 12), Reduction::whole(16));
  EXPECT_TRUE(product(*no_outputs, random_rows(3, 16, 10), 3).empty());
}

TEST_F(CudaLibraryProducts, ActivationsAreRoundedToTheWeights) {
  // 1 + 2^-9 is between the bf16 1 and 1 + 2^-7; 1 + 2^-12 between the fp16 1 and 1 + 2^-10.
  const auto times_one = [&](WeightFormat format, std::uint8_t high, std::uint8_t low, float in) {
    const HostMatrix one{format, 1, 1, {std::byte{low}, std::byte{high}}, {}, {}};
    return product(*backend_->pack(one, Reduction::whole(1)), {in}, 1);
  };
  EXPECT_EQ(times_one(WeightFormat::kBf16, 0x3f, 0x80, 1.001953125f), Floats{1});
  EXPECT_EQ(times_one(WeightFormat::kFp16, 0x3c, 0x00, 1.000244140625f), Floats{1});
  EXPECT_EQ(times_one(WeightFormat::kFp16, 0x3c, 0x00, 1e5f),
            Floats{std::numeric_limits<float>::infinity()});
}

// What is not finite stays in its row, and what stood in `out` before does not matter.
TEST_F(CudaLibraryProducts, ANanStaysInItsRow) {
  constexpr std::int64_t kCols = 64, kOutputs = 24;
  Floats in = random_rows(4, kCols, 13);
  in[2 * kCols + 5] = std::numeric_limits<float>::quiet_NaN();
  const auto weight = backend_->pack(random_matrix(WeightFormat::kBf16, kOutputs, kCols, 14),
                                     Reduction::whole(kCols));
  const Floats out = product(*weight, in, 4);
  for (std::int64_t i = 0; i < 4 * kOutputs; ++i) {
    EXPECT_EQ(std::isnan(out.at(static_cast<std::size_t>(i))), i / kOutputs == 2) << i;
  }
}

TEST_F(CudaLibraryProducts, EmbedReadsTheSameMatrix) {
  const std::vector<std::int32_t> tokens = {100, 118, 99, 119, 103, -2147483647 - 1, 2147483647};
  for (const WeightFormat format : kLibraryFormats) {
    for (const std::int64_t cols : {64, 77}) {
      const HostMatrix matrix = random_matrix(format, 19, cols, 15);
      const auto reference_table = reference::pack(matrix, Reduction::whole(cols));
      EmbedParams params{.table = reference_table.get(),
                         .tokens = tokens.data(),
                         .first_token = 100,
                         .rows = std::ssize(tokens)};
      Floats expected(tokens.size() * static_cast<std::size_t>(cols));
      params.out = expected.data();
      reference::embed(params);

      const auto table = backend_->pack(matrix, Reduction::whole(cols));
      Buffer device_tokens, device_out;
      params.table = table.get();
      params.tokens = upload(*backend_, device_tokens, std::span<const std::int32_t>(tokens));
      params.out = reserve<float>(*backend_, device_out, std::ssize(expected));
      backend_->embed(params);
      Floats out(expected.size());
      backend_->download(out.data(), params.out, out.size() * sizeof(float));
      expect_same_bits(out, expected);
    }
  }
}

// One copy of a matrix: its elements, rows filled up to multiples of 8.
TEST_F(CudaLibraryProducts, AMatrixIsKeptOnceInItsOwnFormat) {
  const auto weight =
      backend_->pack(random_matrix(WeightFormat::kFp16, 5, 77, 16), Reduction::whole(77));
  EXPECT_EQ(weight->format(), WeightFormat::kFp16);
  EXPECT_EQ(weight->rows(), 5);
  EXPECT_EQ(weight->cols(), 77);
  EXPECT_EQ(weight->reduction(), Reduction::whole(77));
  EXPECT_EQ(weight->bytes(), 5u * 80 * 2);
}

TEST_F(CudaLibraryProducts, OtherFormatsAreMultipliedAsEver) {
  const auto canonical = make_cuda_backend({});
  const Floats in = random_rows(5, 192, 17);
  for (const WeightFormat format : kWeightFormats) {
    if (cuda::RowMajorMatrix::holds(format)) continue;
    const HostMatrix matrix = random_matrix(format, 33, 192, 18);
    const auto fast = backend_->pack(matrix, Reduction::whole(192));
    const auto ours = canonical->pack(matrix, Reduction::whole(192));
    expect_same_bits(product(*fast, in, 5), product(*canonical, *ours, in, 5));
  }
}

// A recorded product reads what stands in its buffers when it is repeated.
TEST_F(CudaLibraryProducts, AreRecordedAndRepeated) {
  constexpr std::int64_t kCols = 64, kOutputs = 24, kRows = 3;
  const auto weight = backend_->pack(random_matrix(WeightFormat::kBf16, kOutputs, kCols, 19),
                                     cut({32, 64}, {0, 0}));
  Buffer in_buffer, out_buffer;
  float* const in = reserve<float>(*backend_, in_buffer, kRows * kCols);
  float* const out = reserve<float>(*backend_, out_buffer, 2 * kRows * kOutputs);
  int called = 0;
  std::vector<Floats> inputs, outputs;
  for (unsigned seed = 20; seed < 26; ++seed) {
    inputs.push_back(random_rows(kRows, kCols, seed));
    outputs.emplace_back(2 * kRows * kOutputs);
    backend_->upload(in, inputs.back().data(), inputs.back().size() * sizeof(float));
    backend_->repeat(std::array<std::int64_t, 1>{7}, [&] {
      ++called;
      backend_->linear({weight.get(), in, out, kRows});
    });
    backend_->download(outputs.back().data(), out, outputs.back().size() * sizeof(float));
  }
  EXPECT_EQ(called, 2);  // the second time recorded
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_EQ(outputs[i], product(*weight, inputs[i], kRows)) << i;
  }
}

TEST_F(CudaLibraryProducts, TheIdNamesLibraryAndGpu) {
  EXPECT_THAT(std::string(backend_->numerics()),
              testing::MatchesRegex("cuda,linear=cublaslt[0-9]+/sm_[0-9]+x[0-9]+"));
  EXPECT_EQ(make_cuda_backend({})->numerics(), "cuda");
}

TEST_F(CudaLibraryProducts, AnotherBackendsMatrixIsRefused) {
  const auto weight =
      backend_->pack(random_matrix(WeightFormat::kBf16, 3, 8, 25), Reduction::whole(8));
  EXPECT_THROW(make_cuda_backend({})->linear({.weight = weight.get()}), FatalError);
}

TEST_F(CudaLibraryProducts, AReductionOfOtherColumnsIsRefused) {
  const HostMatrix matrix = random_matrix(WeightFormat::kBf16, 3, 8, 26);
  EXPECT_THROW(backend_->pack(matrix, Reduction::whole(7)), FatalError);
}

// The input stages are those of our own products: the same bits are rounded and multiplied. Without
// outputs they are run all the same.
TEST_F(CudaLibraryProducts, InputStagesComeFirst) {
  for (const WeightFormat format : kLibraryFormats) {
    for (const std::int64_t outputs : {21, 0}) {
      const HostMatrix matrix = random_matrix(format, outputs, 77, 30);
      const auto weight = backend_->pack(matrix, cut({36, 77}, {0, 0}));
      for (const StagedRows& staged : every_input(4, 77, 31)) {
        SCOPED_TRACE(staged.name());
        Floats expected_sum(4 * 77), sum(4 * 77);
        const Floats multiplied = staged.multiplied(expected_sum);
        Buffer norm, partials, sum_buffer;
        LinearInput input = staged.input(nullptr);
        input.norm = upload(*backend_, norm, std::span(staged.norm));
        input.partials = upload(*backend_, partials, std::span(staged.partials));
        input.sum = reserve<float>(*backend_, sum_buffer, std::ssize(sum));
        const Floats got = product(*backend_, *weight, staged.in, 4, input);
        expect_same_bits(got, product(*weight, multiplied, 4));
        if (staged.merges.empty()) continue;
        backend_->download(sum.data(), input.sum, sum.size() * sizeof(float));
        expect_same_bits(sum, expected_sum);
      }
    }
  }
}

/// Counts what it is asked.
class CountingLibrary final : public cuda::CublasLtCalls {
 public:
  explicit CountingLibrary(int& asked) : asked_(asked) {}
  std::string version() const override { return "0"; }
  cuda::MatmulAlgorithm choose(const cuda::MatmulProblem&, std::size_t) override {
    ++asked_;
    return {};
  }
  void multiply(const cuda::MatmulProblem&, const cuda::MatmulAlgorithm&, const void*, const void*,
                float*, std::span<std::byte>, cudaStream_t) override {}

 private:
  int& asked_;
};

// Once for each shape and number of rows; never while a graph is recorded.
TEST_F(CudaLibraryProducts, TheLibraryIsAskedOnce) {
  const auto native = backend_->native_stream();
  const auto stream = static_cast<cudaStream_t>(native->stream);
  int asked = 0;
  cuda::LibraryProducts products(std::make_unique<CountingLibrary>(asked), *backend_);
  cuda::Staging staging(1);
  const cuda::RowMajorMatrix first(random_matrix(WeightFormat::kBf16, 16, 64, 27),
                                   Reduction::whole(64), *backend_, staging);
  const cuda::RowMajorMatrix same_shape(random_matrix(WeightFormat::kBf16, 16, 64, 28),
                                        cut({32, 64}, {0, 1}), *backend_, staging);
  Buffer buffer;
  float* const memory = reserve<float>(*backend_, buffer, 8 * 64 * 3);
  auto* const rounded = reinterpret_cast<std::uint16_t*>(memory + 8 * 64 * 2);
  const auto run = [&](const cuda::RowMajorMatrix& matrix, std::int64_t rows, bool recording) {
    products.linear({&matrix, memory, memory + 8 * 64, rows}, matrix, rounded, recording, stream);
  };
  run(first, 1, false);
  run(first, 1, false);
  run(same_shape, 1, true);
  EXPECT_EQ(asked, 1);
  run(first, 2, false);
  EXPECT_EQ(asked, 2);
  EXPECT_EQ(products.known(), 2u);
  EXPECT_THROW(run(first, 3, true), FatalError);
  run(first, 3, false);
  run(first, 3, true);
  EXPECT_EQ(asked, 3);
  backend_->synchronize();
}

}  // namespace
}  // namespace paceline::kernels
