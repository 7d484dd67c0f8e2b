#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/formats.h"

namespace paceline::kernels {

/// A dense weight matrix in host memory, row-major, as the loader hands it to a backend to pack.
///
/// format         values                         scales                 minimums
/// kFp32          float [rows, cols]             -                      -
/// kBf16, kFp16   uint16 [rows, cols]            -                      -
/// kFp8           E4M3 [rows, cols]              float [rows]           -
/// kInt8Channel   int8 [rows, cols]              float [rows]           -
/// kInt8Group     int8 [rows, cols]              fp16 [rows, cols/32]   -
/// kInt4Group     uint8 [rows, cols/2]           fp16 [rows, cols/32]   fp16 [rows, cols/32]
///
/// In kInt4Group element 2i is the low nibble of byte i; w = scale * q + minimum.
/// The group formats need cols to be a multiple of 32.
struct HostMatrix {
  WeightFormat format = WeightFormat::kFp32;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::vector<std::byte> values;
  std::vector<std::byte> scales;
  std::vector<std::byte> minimums;
};

/// A half-open range of rows or columns.
struct IndexRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t size() const { return end - begin; }
  bool operator==(const IndexRange&) const = default;
};

/// Bytes that one row takes in `values`, `scales` and `minimums`.
struct RowBytes {
  std::size_t values = 0;
  std::size_t scales = 0;
  std::size_t minimums = 0;
};
RowBytes row_bytes(WeightFormat format, std::int64_t cols);

/// Throws FatalError unless the arrays have the bytes of [rows, cols].
void check_sizes(const HostMatrix& matrix);

/// An all-zero matrix.
HostMatrix make_matrix(WeightFormat format, std::int64_t rows, std::int64_t cols);

/// Where some rows of a matrix stand, each array row-major, `row_bytes` a row; null where the
/// format has none.
template <typename Byte>
struct RowArrays {
  Byte* values = nullptr;
  Byte* scales = nullptr;
  Byte* minimums = nullptr;

  /// From `row` on.
  RowArrays from(std::int64_t row, const RowBytes& bytes) const {
    const auto r = static_cast<std::size_t>(row);
    return {values + r * bytes.values, scales + r * bytes.scales, minimums + r * bytes.minimums};
  }
};
using StoredRows = RowArrays<const std::byte>;
using RowSpace = RowArrays<std::byte>;
inline StoredRows rows_of(const HostMatrix& matrix) {
  return {matrix.values.data(), matrix.scales.data(), matrix.minimums.data()};
}
inline RowSpace rows_of(HostMatrix& matrix) {
  return {matrix.values.data(), matrix.scales.data(), matrix.minimums.data()};
}

/// Every element as fp32. int8, fp8: scale * q; int4: fma(scale, q, minimum); exact for the group
/// int8 format, one rounding for the others.
std::vector<float> to_fp32(const HostMatrix& matrix);

/// The matrix in another format, rounded to nearest (even).
/// kInt8Channel: scale = max|row| / 127. kFp8: scale = max|row| / 448, value / scale rounded to
/// E4M3. kInt8Group: GGUF Q8_0's rule, scale = fp16(max|group| / 127). kInt4Group: GGUF Q4_1's
/// rule, minimum = fp16(min), scale = fp16((max - min) / 15), then q is chosen against the rounded
/// scale and minimum.
HostMatrix convert(const HostMatrix& matrix, WeightFormat to);

/// What a refusal calls a matrix and the first of its rows.
struct MatrixName {
  std::string text = "the weights";
  std::int64_t first_row = 0;
};

/// The same for `rows` rows that stand anywhere. Throws ConfigError naming the matrix and the row
/// that holds a number which `to` cannot.
void convert_rows(WeightFormat from, const StoredRows& in, WeightFormat to, const RowSpace& out,
                  std::int64_t rows, std::int64_t cols, const MatrixName& name = {});

}  // namespace paceline::kernels
