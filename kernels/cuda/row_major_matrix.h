#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/api.h"
#include "kernels/cuda/staging.h"
#include "kernels/params.h"

namespace paceline::kernels::cuda {

/// The columns that each of a reduction's outputs is a sum over: [0, 4), [4, 6), [6, 10) with
/// merges 0, 1, 0 are [0, 6) and [6, 10). The reduction has been checked.
std::vector<IndexRange> output_columns(const Reduction& reduction);

/// A bf16 or fp16 matrix in device memory, row by row as cuBLASLt reads it, for `linear` and
/// `embed` both.
class RowMajorMatrix final : public PackedMatrix {
 public:
  /// Whether matrices of this format can be kept so.
  static constexpr bool holds(WeightFormat format) {
    return format == WeightFormat::kBf16 || format == WeightFormat::kFp16;
  }

  /// The memory is `device`'s; rows come by `staging`, in the order of its stream: `matrix` has
  /// been read when this returns.
  RowMajorMatrix(const MatrixSource& matrix, const Reduction& reduction, Backend& device,
                 Staging& staging);

  WeightFormat format() const override { return format_; }
  std::int64_t rows() const override { return rows_; }
  std::int64_t cols() const override { return cols_; }
  const Reduction& reduction() const override { return reduction_; }
  std::size_t bytes() const override { return values_.bytes(); }

  /// Elements from a row to the next: cols up to a multiple of 8, so that each begins at a multiple
  /// of 16 bytes, without which the library's best kernels do not run.
  std::int64_t stride() const { return stride_; }
  /// [rows, stride]; zeros behind the columns.
  const std::uint16_t* values() const { return values_.as<std::uint16_t>(); }
  /// output_columns of the reduction.
  std::span<const IndexRange> sums() const { return sums_; }

 private:
  WeightFormat format_;
  std::int64_t rows_;
  std::int64_t cols_;
  std::int64_t stride_;
  Reduction reduction_;
  std::vector<IndexRange> sums_;
  Buffer values_;
};

}  // namespace paceline::kernels::cuda
