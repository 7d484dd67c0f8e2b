#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/core/half.h"
#include "kernels/params.h"

/// What every backend's `linear` is tried with.
namespace paceline::kernels {

inline constexpr WeightFormat kWeightFormats[] = {
    WeightFormat::kFp32,     WeightFormat::kBf16,        WeightFormat::kFp16,
    WeightFormat::kFp8,      WeightFormat::kInt8Channel, WeightFormat::kInt8Group,
    WeightFormat::kInt4Group};

/// Every bit pattern of the integer formats occurs, -128 too, and of fp8 but NaN; floats have all
/// magnitudes that a product of a few hundred can add without overflow.
inline HostMatrix random_matrix(WeightFormat format, std::int64_t rows, std::int64_t cols,
                                unsigned seed) {
  std::mt19937 random(seed);
  const RowBytes bytes = row_bytes(format, cols);
  const auto count = static_cast<std::size_t>(rows);
  HostMatrix matrix{format, rows, cols, {}, {}, {}};
  matrix.values.resize(count * bytes.values);
  matrix.scales.resize(count * bytes.scales);
  matrix.minimums.resize(count * bytes.minimums);
  for (std::byte& value : matrix.values) value = static_cast<std::byte>(random() & 255);
  std::normal_distribution<float> normal;
  const auto fill_halves = [&](std::vector<std::byte>& to, float size) {
    for (std::size_t i = 0; i + 1 < to.size(); i += 2) {
      const std::uint16_t half = fp32_to_fp16(normal(random) * size);
      std::memcpy(to.data() + i, &half, 2);
    }
  };
  const auto fill_floats = [&](std::vector<std::byte>& to, float size) {
    for (std::size_t i = 0; i + 3 < to.size(); i += 4) {
      const float value = normal(random) * size;
      std::memcpy(to.data() + i, &value, 4);
    }
  };
  if (format == WeightFormat::kFp32) fill_floats(matrix.values, 0.05f);
  if (format == WeightFormat::kFp16) fill_halves(matrix.values, 0.05f);
  if (format == WeightFormat::kBf16) {
    for (std::size_t i = 0; i + 1 < matrix.values.size(); i += 2) {
      const std::uint16_t half = fp32_to_bf16(normal(random) * 0.05f);
      std::memcpy(matrix.values.data() + i, &half, 2);
    }
  }
  if (format == WeightFormat::kFp8) {
    for (std::byte& value : matrix.values) {
      if ((value & std::byte{0x7f}) == std::byte{0x7f}) value ^= std::byte{1};
    }
  }
  if (has_channel_scales(format)) {
    fill_floats(matrix.scales, 0.001f);
  } else {
    fill_halves(matrix.scales, 0.005f);
    fill_halves(matrix.minimums, 0.05f);
  }
  return matrix;
}

inline std::vector<float> random_rows(std::int64_t rows, std::int64_t cols, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(rows * cols));
  for (float& value : values) value = normal(random);
  return values;
}

inline Reduction cut(const std::vector<std::int64_t>& ends, const std::vector<int>& merges) {
  Reduction reduction;
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < ends.size(); ++i) {
    reduction.segments.push_back({{begin, ends[i]}, merges[i]});
    begin = ends[i];
  }
  return reduction;
}

/// Reductions of 512 inputs. Eight shards along one binary tree; the same with empty ones; two
/// partial sums of shards 2 to 4; everything kept; everything added from the right.
inline std::vector<Reduction> reductions_of_512() {
  return {
      cut({64, 128, 192, 256, 320, 384, 448, 512}, {0, 1, 0, 2, 0, 1, 0, 3}),
      cut({0, 128, 128, 256, 256, 256, 512, 512}, {0, 1, 0, 2, 0, 1, 0, 3}),
      cut({128, 320, 512}, {0, 1, 0}),
      cut({64, 64, 320, 512}, {0, 0, 0, 0}),
      cut({64, 128, 192, 512}, {0, 0, 0, 3}),
  };
}

/// Rows of zeros of both signs, denormals, the largest numbers, infinities, NaN: each once alone
/// among ordinary numbers, once filling a row.
inline std::vector<float> extreme_rows(std::int64_t cols, unsigned seed) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> extremes = {0.0f,
                                       -0.0f,
                                       1e-45f,
                                       -1e-40f,
                                       1e-31f,
                                       1e-30f,
                                       -3.0e38f,
                                       3.4e38f,
                                       infinity,
                                       -infinity,
                                       std::numeric_limits<float>::quiet_NaN(),
                                       std::bit_cast<float>(0xff812345u)};
  const auto rows = static_cast<std::int64_t>(2 * extremes.size());
  std::vector<float> in = random_rows(rows, cols, seed);
  for (std::size_t i = 0; i < extremes.size(); ++i) {
    const auto first = static_cast<std::int64_t>(2 * i) * cols;
    in[first + cols / 2 + 13] = extremes[i];
    std::fill_n(in.begin() + first + cols, cols, extremes[i]);
  }
  return in;
}

/// One output by hand (kernels/params.h has the rule): the activations are q = {127, -1, 0, ...}
/// with scale 1, the weights' dot product is 127 * 1 - 1 * 2 = 125, the sum of q is 126: 125 * (1 *
/// 0.5) + (1 * 126) * -1.
inline HostMatrix int4_example() {
  HostMatrix matrix{WeightFormat::kInt4Group, 1, 32, {}, {}, {}};
  matrix.values.assign(16, std::byte{0x21});             // 1, 2, 1, 2, ...
  matrix.scales = {std::byte{0x00}, std::byte{0x38}};    // 0.5
  matrix.minimums = {std::byte{0x00}, std::byte{0xbc}};  // -1
  return matrix;
}
inline std::vector<float> int4_example_row() {
  std::vector<float> in(32, 0.0f);
  in[0] = 127;
  in[1] = -1;
  return in;
}
inline constexpr float kInt4ExampleResult = -63.5f;

}  // namespace paceline::kernels
