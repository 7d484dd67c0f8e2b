#include "kernels/core/host_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

#include "kernels/core/error.h"
#include "kernels/core/float8.h"
#include "kernels/core/half.h"

namespace paceline::kernels {

namespace {

template <typename T>
T load(const std::byte* bytes, std::int64_t index) {
  T value;
  std::memcpy(&value, bytes + static_cast<std::size_t>(index) * sizeof(T), sizeof(T));
  return value;
}

template <typename T>
void store(std::byte* bytes, std::int64_t index, T value) {
  std::memcpy(bytes + static_cast<std::size_t>(index) * sizeof(T), &value, sizeof(T));
}

bool is_grouped(WeightFormat format) {
  return format == WeightFormat::kInt8Group || format == WeightFormat::kInt4Group;
}

// What makes a scale of the largest cannot hold infinity or NaN.
bool needs_finite(WeightFormat format) { return has_channel_scales(format) || is_grouped(format); }

void decode_int4(const StoredRows& row, std::int64_t cols, float* out) {
  for (std::int64_t group = 0; group < cols / kWeightGroup; ++group) {
    const float scale = fp16_to_fp32(load<std::uint16_t>(row.scales, group));
    const float minimum = fp16_to_fp32(load<std::uint16_t>(row.minimums, group));
    for (std::int64_t k = group * kWeightGroup; k < (group + 1) * kWeightGroup; k += 2) {
      const auto pair = load<std::uint8_t>(row.values, k / 2);
      out[k] = std::fma(scale, static_cast<float>(pair & 15), minimum);
      out[k + 1] = std::fma(scale, static_cast<float>(pair >> 4), minimum);
    }
  }
}

void decode_row(WeightFormat format, const StoredRows& row, std::int64_t cols, float* out) {
  switch (format) {
    case WeightFormat::kFp32:
      if (cols > 0) std::memcpy(out, row.values, static_cast<std::size_t>(cols) * sizeof(float));
      return;
    case WeightFormat::kBf16:
      for (std::int64_t k = 0; k < cols; ++k) {
        out[k] = bf16_to_fp32(load<std::uint16_t>(row.values, k));
      }
      return;
    case WeightFormat::kFp16:
      for (std::int64_t k = 0; k < cols; ++k) {
        out[k] = fp16_to_fp32(load<std::uint16_t>(row.values, k));
      }
      return;
    case WeightFormat::kFp8: {
      const float scale = load<float>(row.scales, 0);
      for (std::int64_t k = 0; k < cols; ++k) {
        out[k] = scale * fp8_to_fp32(load<std::uint8_t>(row.values, k));
      }
      return;
    }
    case WeightFormat::kInt8Channel: {
      const float scale = load<float>(row.scales, 0);
      for (std::int64_t k = 0; k < cols; ++k) {
        out[k] = scale * static_cast<float>(load<std::int8_t>(row.values, k));
      }
      return;
    }
    case WeightFormat::kInt8Group:
      for (std::int64_t k = 0; k < cols; ++k) {
        const float scale = fp16_to_fp32(load<std::uint16_t>(row.scales, k / kWeightGroup));
        out[k] = scale * static_cast<float>(load<std::int8_t>(row.values, k));
      }
      return;
    case WeightFormat::kInt4Group:
      decode_int4(row, cols, out);
      return;
  }
}

// value / scale rounded to an integer of [low, high]; 0 where the scale has vanished.
float quantized(float value, float scale, float low, float high) {
  if (scale == 0) return 0;
  return std::clamp(std::nearbyint(value / scale), low, high);
}

std::uint16_t finite_fp16(float value) {
  const std::uint16_t half = fp32_to_fp16(value);
  if ((half & 0x7c00u) == 0x7c00u) {
    throw ConfigError("a weight group needs the scale or minimum {}, beyond fp16", value);
  }
  return half;
}

float largest_magnitude(std::span<const float> values) {
  float largest = 0;
  for (float value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

void encode_int8(std::span<const float> in, float scale, std::byte* values, std::int64_t first) {
  for (std::size_t i = 0; i < in.size(); ++i) {
    store(values, first + static_cast<std::int64_t>(i),
          static_cast<std::int8_t>(quantized(in[i], scale, -127, 127)));
  }
}

void encode_int4_group(std::span<const float> in, const RowSpace& row, std::int64_t group) {
  const auto [low, high] = std::ranges::minmax(in);
  const std::uint16_t minimum_half = finite_fp16(low);
  const std::uint16_t scale_half = finite_fp16((high - low) / 15.0f);
  store(row.minimums, group, minimum_half);
  store(row.scales, group, scale_half);
  const float minimum = fp16_to_fp32(minimum_half);
  const float scale = fp16_to_fp32(scale_half);
  for (std::size_t i = 0; i < in.size(); i += 2) {
    const auto first = static_cast<unsigned>(quantized(in[i] - minimum, scale, 0, 15));
    const auto second = static_cast<unsigned>(quantized(in[i + 1] - minimum, scale, 0, 15));
    store(row.values, group * kWeightGroup / 2 + static_cast<std::int64_t>(i) / 2,
          static_cast<std::uint8_t>(first | second << 4));
  }
}

void encode_row(WeightFormat format, std::span<const float> in, const RowSpace& row) {
  const auto cols = static_cast<std::int64_t>(in.size());
  switch (format) {
    case WeightFormat::kFp32:
      for (std::int64_t k = 0; k < cols; ++k) store(row.values, k, in[k]);
      return;
    case WeightFormat::kBf16:
      for (std::int64_t k = 0; k < cols; ++k) store(row.values, k, fp32_to_bf16(in[k]));
      return;
    case WeightFormat::kFp16:
      for (std::int64_t k = 0; k < cols; ++k) store(row.values, k, fp32_to_fp16(in[k]));
      return;
    case WeightFormat::kFp8: {
      const float scale = largest_magnitude(in) / kLargestFp8;
      store(row.scales, 0, scale);
      for (std::int64_t k = 0; k < cols; ++k) {
        store(row.values, k, scale == 0 ? std::uint8_t{0} : fp32_to_fp8(in[k] / scale));
      }
      return;
    }
    case WeightFormat::kInt8Channel: {
      const float scale = largest_magnitude(in) / 127.0f;
      store(row.scales, 0, scale);
      encode_int8(in, scale, row.values, 0);
      return;
    }
    case WeightFormat::kInt8Group:
    case WeightFormat::kInt4Group:
      break;
  }
  for (std::int64_t k = 0; k < cols; k += kWeightGroup) {
    const std::span<const float> group = in.subspan(k, kWeightGroup);
    if (format == WeightFormat::kInt4Group) {
      encode_int4_group(group, row, k / kWeightGroup);
    } else {
      const std::uint16_t scale = finite_fp16(largest_magnitude(group) / 127.0f);
      store(row.scales, k / kWeightGroup, scale);
      encode_int8(group, fp16_to_fp32(scale), row.values, k);
    }
  }
}

}  // namespace

RowBytes row_bytes(WeightFormat format, std::int64_t cols) {
  check(!is_grouped(format) || cols % kWeightGroup == 0, "{} needs cols in groups of {}, not {}",
        format_name(format), kWeightGroup, cols);
  const auto k = static_cast<std::size_t>(cols);
  switch (format) {
    case WeightFormat::kFp32:
      return {4 * k, 0, 0};
    case WeightFormat::kBf16:
    case WeightFormat::kFp16:
      return {2 * k, 0, 0};
    case WeightFormat::kFp8:
    case WeightFormat::kInt8Channel:
      return {k, 4, 0};
    case WeightFormat::kInt8Group:
      return {k, 2 * (k / kWeightGroup), 0};
    case WeightFormat::kInt4Group:
      return {k / 2, 2 * (k / kWeightGroup), 2 * (k / kWeightGroup)};
  }
  throw FatalError("unknown weight format {}", static_cast<int>(format));
}

void check_sizes(const HostMatrix& matrix) {
  check(matrix.rows >= 0 && matrix.cols >= 0, "matrix of [{}, {}]", matrix.rows, matrix.cols);
  const RowBytes row = row_bytes(matrix.format, matrix.cols);
  const auto rows = static_cast<std::size_t>(matrix.rows);
  check(matrix.values.size() == rows * row.values && matrix.scales.size() == rows * row.scales &&
            matrix.minimums.size() == rows * row.minimums,
        "{} matrix [{}, {}] has {} + {} + {} bytes", format_name(matrix.format), matrix.rows,
        matrix.cols, matrix.values.size(), matrix.scales.size(), matrix.minimums.size());
}

HostMatrix make_matrix(WeightFormat format, std::int64_t rows, std::int64_t cols) {
  const RowBytes row = row_bytes(format, cols);
  HostMatrix matrix{format, rows, cols, {}, {}, {}};
  matrix.values.resize(static_cast<std::size_t>(rows) * row.values);
  matrix.scales.resize(static_cast<std::size_t>(rows) * row.scales);
  matrix.minimums.resize(static_cast<std::size_t>(rows) * row.minimums);
  return matrix;
}

std::vector<float> to_fp32(const HostMatrix& matrix) {
  check_sizes(matrix);
  const RowBytes bytes = row_bytes(matrix.format, matrix.cols);
  std::vector<float> values(static_cast<std::size_t>(matrix.rows * matrix.cols));
  for (std::int64_t row = 0; row < matrix.rows; ++row) {
    decode_row(matrix.format, rows_of(matrix).from(row, bytes), matrix.cols,
               values.data() + row * matrix.cols);
  }
  return values;
}

HostMatrix convert(const HostMatrix& matrix, WeightFormat to) {
  check_sizes(matrix);
  if (matrix.format == to) return matrix;
  HostMatrix converted = make_matrix(to, matrix.rows, matrix.cols);
  convert_rows(matrix.format, rows_of(matrix), to, rows_of(converted), matrix.rows, matrix.cols);
  return converted;
}

void convert_rows(WeightFormat from, const StoredRows& in, WeightFormat to, const RowSpace& out,
                  std::int64_t rows, std::int64_t cols, const MatrixName& name) {
  const RowBytes in_bytes = row_bytes(from, cols);
  const RowBytes out_bytes = row_bytes(to, cols);
  std::vector<float> values(static_cast<std::size_t>(cols));
  for (std::int64_t row = 0; row < rows; ++row) {
    decode_row(from, in.from(row, in_bytes), cols, values.data());
    const bool finite = std::ranges::all_of(values, [](float v) { return std::isfinite(v); });
    if (needs_finite(to) && !finite) {
      throw ConfigError("row {} of {} is not finite, which {} cannot hold", name.first_row + row,
                        name.text, format_name(to));
    }
    encode_row(to, values, out.from(row, out_bytes));
  }
}

}  // namespace paceline::kernels
