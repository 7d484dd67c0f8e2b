#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/cuda/device_matrix.h"
#include "kernels/cuda/ops.h"
#include "kernels/reference/linear.h"
#include "tests/kernels/every_cpu.h"
#include "tests/support/simt/every_order.h"

namespace paceline::kernels {
namespace {

using Floats = std::vector<float>;
using simt::in_every_order;

constexpr WeightFormat kFormats[] = {WeightFormat::kFp32,      WeightFormat::kBf16,
                                     WeightFormat::kFp16,      WeightFormat::kInt8Channel,
                                     WeightFormat::kInt8Group, WeightFormat::kInt4Group};

HostMatrix random_matrix(std::int64_t rows, std::int64_t cols) {
  Floats values = random_floats(rows * cols, 1, 1);
  values[0] = -0.0f;  // which becomes +0
  HostMatrix matrix{WeightFormat::kFp32, rows, cols, {}, {}, {}};
  matrix.values.resize(values.size() * sizeof(float));
  std::memcpy(matrix.values.data(), values.data(), matrix.values.size());
  return matrix;
}

// Where the kernels run on the CPU its memory is the device's.
std::unique_ptr<Backend> device() { return make_reference_backend(); }

TEST(CudaEmbed, SameBitsInEveryFormat) {
  constexpr std::int64_t kCols = 96;
  const auto memory = device();
  const std::vector<std::int32_t> tokens = {100, 106, 99, 107, 103, -2147483647 - 1, 2147483647};
  for (const WeightFormat format : kFormats) {
    SCOPED_TRACE(std::string(format_name(format)));
    const HostMatrix matrix = convert(random_matrix(7, kCols), format);
    const auto reference_table = reference::pack(matrix, Reduction::whole(kCols));
    const cuda::DeviceMatrix table(matrix, Reduction::whole(kCols), *memory);
    EmbedParams params{.table = reference_table.get(),
                       .tokens = tokens.data(),
                       .first_token = 100,
                       .rows = static_cast<std::int64_t>(tokens.size())};
    Floats expected(tokens.size() * kCols);
    params.out = expected.data();
    reference::embed(params);
    EXPECT_TRUE(same_bits(expected[0], 0.0f) || format != WeightFormat::kFp32);
    in_every_order([&] {
      Floats out(tokens.size() * kCols, 7.0f);
      params.table = &table;
      params.out = out.data();
      cuda::embed(params, nullptr);
      expect_same_bits(out, expected);
    });
  }
}

TEST(CudaEmbed, RefusesAnotherBackendsMatrix) {
  const auto table = reference::pack(random_matrix(1, 1), Reduction::whole(1));
  EXPECT_THROW(cuda::embed({.table = table.get()}, nullptr), FatalError);
}

TEST(CudaDeviceMatrix, KeepsWhatItWasMadeOf) {
  const auto memory = device();
  const HostMatrix matrix = convert(random_matrix(4, 64), WeightFormat::kInt4Group);
  const Reduction halves{{{{0, 32}, 0}, {{32, 64}, 0}}};
  const cuda::DeviceMatrix packed(matrix, halves, *memory);
  EXPECT_EQ(packed.format(), WeightFormat::kInt4Group);
  EXPECT_EQ(packed.rows(), 4);
  EXPECT_EQ(packed.cols(), 64);
  EXPECT_EQ(packed.reduction(), halves);
  EXPECT_EQ(packed.bytes(), 4u * 32 + 4 * 2 * 2 + 4 * 2 * 2);
}

TEST(CudaDeviceMatrix, RefusesOneThatLacksBytesOrIsCutWithinAGroup) {
  const auto memory = device();
  HostMatrix matrix = convert(random_matrix(4, 64), WeightFormat::kInt8Group);
  const Reduction cut{{{{0, 16}, 0}, {{16, 64}, 0}}};
  EXPECT_THROW(cuda::DeviceMatrix(matrix, cut, *memory), FatalError);
  matrix.scales.pop_back();
  EXPECT_THROW(cuda::DeviceMatrix(matrix, Reduction::whole(64), *memory), FatalError);
}

}  // namespace
}  // namespace paceline::kernels
