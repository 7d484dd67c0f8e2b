#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/api.h"
#include "kernels/params.h"

namespace paceline::kernels::cuda {

/// A DeviceMatrix as its kernels see it; the pointers are device memory, laid out as in HostMatrix.
struct DeviceMatrixView {
  WeightFormat format = WeightFormat::kFp32;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  const void* values = nullptr;
  const void* scales = nullptr;
  const void* minimums = nullptr;
};

/// A matrix in device memory, row-major as it came.
class DeviceMatrix final : public PackedMatrix {
 public:
  /// The memory is `device`'s.
  DeviceMatrix(const HostMatrix& matrix, const Reduction& reduction, Backend& device);

  WeightFormat format() const override { return format_; }
  std::int64_t rows() const override { return rows_; }
  std::int64_t cols() const override { return cols_; }
  const Reduction& reduction() const override { return reduction_; }
  std::size_t bytes() const override {
    return values_.bytes() + scales_.bytes() + minimums_.bytes();
  }

  DeviceMatrixView view() const {
    return {format_, rows_, cols_, values_.as<void>(), scales_.as<void>(), minimums_.as<void>()};
  }

 private:
  WeightFormat format_;
  std::int64_t rows_;
  std::int64_t cols_;
  Reduction reduction_;
  Buffer values_;
  Buffer scales_;
  Buffer minimums_;
};

}  // namespace paceline::kernels::cuda
