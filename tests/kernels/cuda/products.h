#pragma once

#include <gtest/gtest.h>
#include <test_device.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/core/half.h"
#include "kernels/cuda/device_matrix.h"
#include "kernels/cuda/ops.h"
#include "kernels/reference/linear.h"
#include "tests/kernels/cuda/packed_matrix.h"
#include "tests/kernels/every_cpu.h"
#include "tests/kernels/linear_cases.h"

/// What the tests of the CUDA kernels' `linear` share.
namespace paceline::kernels {

using Floats = std::vector<float>;

inline cuda::DeviceMatrix packed(const HostMatrix& matrix, const Reduction& reduction) {
  return packed_matrix(matrix, reduction, *device_memory());
}

/// Outputs and workspace begin as something that shows where it is not written, and have more of it
/// behind them, which nobody may write.
inline Floats product(const PackedMatrix& weight, const Floats& in, std::int64_t rows,
                      const LinearInput& input = {}) {
  constexpr std::size_t kBehind = 64;
  constexpr float kUnwritten = 12345.0f;
  const auto size = static_cast<std::size_t>(weight.reduction().outputs() * rows * weight.rows());
  Floats out(size + kBehind, kUnwritten);
  const std::size_t bytes = cuda::linear_workspace_bytes(weight, rows);
  std::vector<std::byte> workspace(bytes + kBehind, std::byte{0xff});
  cuda::linear({&weight, in.data(), out.data(), rows, input}, {workspace.data(), bytes}, nullptr);
  EXPECT_EQ(std::count(workspace.begin() + bytes, workspace.end(), std::byte{0xff}), kBehind);
  EXPECT_EQ(std::count(out.begin() + size, out.end(), kUnwritten), kBehind);
  out.resize(size);
  return out;
}

/// What the tensor core's formats are multiplied with.
inline Floats rounded(Floats in, WeightFormat format) {
  for (float& value : in) {
    if (format == WeightFormat::kBf16) value = bf16_to_fp32(fp32_to_bf16(value));
    if (format == WeightFormat::kFp16) value = fp16_to_fp32(fp32_to_fp16(value));
    if (format == WeightFormat::kFp8) value = fp16_to_fp32(fp32_to_fp16(value / 16)) * 16;
  }
  return in;
}

inline Floats reference_product(const HostMatrix& matrix, const Reduction& reduction,
                                const Floats& in, std::int64_t rows) {
  const auto weight = reference::pack(matrix, reduction);
  const Floats seen = rounded(in, matrix.format);
  Floats out(static_cast<std::size_t>(reduction.outputs() * rows * matrix.rows));
  reference::linear({weight.get(), seen.data(), out.data(), rows});
  return out;
}

/// The product of the magnitudes: what the rounding of a sum is measured by.
inline Floats sums_of_magnitudes(HostMatrix matrix, const Reduction& reduction, const Floats& in,
                                 std::int64_t rows) {
  // All have the sign on top, fp8's scales too.
  const auto drop_signs = [](std::vector<std::byte>& bytes, std::size_t size) {
    for (std::size_t i = size - 1; i < bytes.size(); i += size) bytes[i] &= std::byte{0x7f};
  };
  drop_signs(matrix.values, matrix.format == WeightFormat::kFp8 ? 1 : 2);
  drop_signs(matrix.scales, sizeof(float));
  Floats magnitudes = in;
  for (float& value : magnitudes) value = std::fabs(value);
  return reference_product(matrix, reduction, magnitudes, rows);
}

/// Of the longest segment, 16 inputs each.
inline std::int64_t most_instructions(const Reduction& reduction) {
  std::int64_t most = 0;
  for (const Reduction::Segment& segment : reduction.segments) {
    most = std::max(most, (segment.cols.size() + 15) / 16);
  }
  return most;
}

/// The bound of docs/cuda.md for the tensor core, and as much again for the reference's own chain
/// and for what adds the segments. Where a sum may overflow there is none.
inline void expect_close(const Floats& got, const Floats& expected, const Floats& magnitudes,
                         std::int64_t instructions) {
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (!std::isfinite(magnitudes[i])) continue;
    const double bound = 0x1p-18 * static_cast<double>(instructions) * magnitudes[i] + 0x1p-126;
    ASSERT_LE(std::fabs(double{got[i]} - expected[i]), bound)
        << "element " << i << ": " << got[i] << ", expected " << expected[i];
  }
}

inline bool on_float_tensor_cores(WeightFormat format) {
  return format == WeightFormat::kBf16 || format == WeightFormat::kFp16 ||
         format == WeightFormat::kFp8;
}

/// The product of `in` [rows, cols], which on a GPU is that of tensor cores in some formats.
inline void expect_product(const Floats& got, const HostMatrix& matrix, const Reduction& reduction,
                           const Floats& in, std::int64_t rows) {
  const Floats expected = reference_product(matrix, reduction, in, rows);
  if (kOnGpu && on_float_tensor_cores(matrix.format)) {
    expect_close(got, expected, sums_of_magnitudes(matrix, reduction, in, rows),
                 most_instructions(reduction));
  } else {
    expect_same_bits(got, expected);
  }
}

}  // namespace paceline::kernels
