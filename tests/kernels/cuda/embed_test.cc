#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <test_device.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/cuda/device_matrix.h"
#include "kernels/cuda/ops.h"
#include "kernels/reference/linear.h"
#include "tests/kernels/cuda/packed_matrix.h"
#include "tests/kernels/every_cpu.h"
#include "tests/kernels/linear_cases.h"

namespace paceline::kernels {
namespace {

using Floats = std::vector<float>;

HostMatrix random_matrix(std::int64_t rows, std::int64_t cols) {
  Floats values = random_floats(rows * cols, 1, 1);
  values[0] = -0.0f;  // which becomes +0
  HostMatrix matrix{WeightFormat::kFp32, rows, cols, {}, {}, {}};
  matrix.values.resize(values.size() * sizeof(float));
  std::memcpy(matrix.values.data(), values.data(), matrix.values.size());
  return matrix;
}

TEST(CudaEmbed, SameBitsInEveryFormat) {
  constexpr std::int64_t kCols = 192;
  const auto memory = device_memory();
  // Rows of two panels, and no rows.
  const std::vector<std::int32_t> tokens = {100,       118, 99, 119, 103, 110, -2147483647 - 1,
                                            2147483647};
  for (const WeightFormat format : kWeightFormats) {
    SCOPED_TRACE(std::string(format_name(format)));
    const HostMatrix matrix = convert(random_matrix(19, kCols), format);
    const auto reference_table = reference::pack(matrix, Reduction::whole(kCols));
    EmbedParams params{.table = reference_table.get(),
                       .tokens = tokens.data(),
                       .first_token = 100,
                       .rows = static_cast<std::int64_t>(tokens.size())};
    Floats expected(tokens.size() * kCols);
    params.out = expected.data();
    reference::embed(params);
    EXPECT_TRUE(same_bits(expected[0], 0.0f) || format != WeightFormat::kFp32);
    // However the matrix is cut for `linear`.
    for (const Reduction& reduction :
         {Reduction::whole(kCols), cut({0, 64, 64, 128, kCols}, {0, 0, 0, 0, 0})}) {
      const cuda::DeviceMatrix table = packed_matrix(matrix, reduction, *memory);
      in_every_order([&] {
        Floats out(tokens.size() * kCols, 7.0f);
        params.table = &table;
        params.out = out.data();
        cuda::embed(params, nullptr);
        expect_same_bits(out, expected);
      });
    }
  }
}

// Steps of 8 and 16 inputs, the last of each segment filled up.
TEST(CudaEmbed, SegmentsOfFloatsMayEndAnywhere) {
  const auto memory = device_memory();
  const std::vector<std::int32_t> token = {17};
  for (const WeightFormat format :
       {WeightFormat::kFp32, WeightFormat::kBf16, WeightFormat::kFp16, WeightFormat::kFp8}) {
    const HostMatrix matrix = convert(random_matrix(18, 77), format);
    const cuda::DeviceMatrix table = packed_matrix(matrix, cut({5, 36, 77}, {0, 0, 0}), *memory);
    Floats out(77);
    cuda::embed({.table = &table, .tokens = token.data(), .out = out.data(), .rows = 1}, nullptr);
    const Floats all = to_fp32(matrix);
    EXPECT_EQ(out, Floats(all.end() - 77, all.end()));
  }
}

TEST(CudaEmbed, RefusesAnotherBackendsMatrix) {
  const auto table = reference::pack(random_matrix(1, 1), Reduction::whole(1));
  EXPECT_THROW(cuda::embed({.table = table.get()}, nullptr), FatalError);
}

}  // namespace
}  // namespace paceline::kernels
