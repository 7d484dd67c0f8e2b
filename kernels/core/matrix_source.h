#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "kernels/core/host_matrix.h"

namespace paceline::kernels {

/// A weight matrix [rows, cols] that is read some rows at a time, where they are needed: from a
/// file, cut and converted on the way. So a large one is never whole in host memory but in the form
/// that a backend packs it into.
class MatrixSource {
 public:
  /// Writes rows to where they are to stand. Threads may call it at the same time.
  using Read = std::function<void(IndexRange rows, const RowSpace& to)>;

  MatrixSource(WeightFormat format, std::int64_t rows, std::int64_t cols, Read read);
  /// A matrix in memory, which this keeps.
  MatrixSource(HostMatrix matrix);  // NOLINT(google-explicit-constructor)

  WeightFormat format() const { return format_; }
  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }

  /// Writes rows [rows.begin, rows.end) to `to`.
  void read(IndexRange rows, const RowSpace& to) const;

 private:
  WeightFormat format_;
  std::int64_t rows_;
  std::int64_t cols_;
  Read read_;
};

/// All rows, or some of them.
HostMatrix read_rows(const MatrixSource& source);
HostMatrix read_rows(const MatrixSource& source, IndexRange rows);

/// Every element as fp32, see `to_fp32` of a HostMatrix.
std::vector<float> to_fp32(const MatrixSource& source);

/// The given rows, in the order of the ranges.
MatrixSource take_rows(MatrixSource source, std::span<const IndexRange> ranges);

/// Columns [range.begin, range.end); in the group formats both must be multiples of 32.
MatrixSource take_cols(MatrixSource source, IndexRange range);

/// Columns [range.begin, range.end) of `rows` rows of `cols` that stand anywhere.
void copy_cols(WeightFormat format, const StoredRows& from, std::int64_t cols, IndexRange range,
               std::int64_t rows, const RowSpace& to);

/// The rows of all parts, one after the other. All must agree in format and cols.
MatrixSource concat_rows(std::vector<MatrixSource> parts);

/// The matrix in another format, see `convert` of a HostMatrix; `name` is that of its row 0.
MatrixSource convert(MatrixSource source, WeightFormat to, MatrixName name = {});

}  // namespace paceline::kernels
