#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/api.h"
#include "kernels/cuda/linear_layout.h"
#include "kernels/cuda/staging.h"
#include "kernels/params.h"

namespace paceline::kernels::cuda {

/// A segment of the matrix's reduction, as the kernels see it.
struct DeviceSegment {
  std::int64_t first_col = 0;
  std::int64_t cols = 0;
  std::int32_t first_step = 0;  // of a panel
  std::int32_t steps = 0;
  std::int32_t merges = 0;
};

/// A DeviceMatrix as its kernels see it; the pointers are device memory.
struct DeviceMatrixView {
  WeightFormat format = WeightFormat::kFp32;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t panels = 0;
  std::int32_t panel_steps = 0;
  std::int32_t segment_count = 0;
  const std::byte* steps = nullptr;         // [panels, panel_steps], see linear_layout.h
  const float* channel_scales = nullptr;    // [panels * 16], of int8 and fp8
  const DeviceSegment* segments = nullptr;  // [segment_count]
};

/// A matrix in device memory, in panels of 16 outputs, for `linear` and `embed` both.
class DeviceMatrix final : public PackedMatrix {
 public:
  /// The memory is `device`'s. Its rows come by `staging` and are laid out on the device, in the
  /// order of its stream: `matrix` has been read when this returns.
  DeviceMatrix(const MatrixSource& matrix, const Reduction& reduction, Backend& device,
               Staging& staging);

  WeightFormat format() const override { return view_.format; }
  std::int64_t rows() const override { return view_.rows; }
  std::int64_t cols() const override { return view_.cols; }
  const Reduction& reduction() const override { return reduction_; }
  std::size_t bytes() const override {
    return steps_.bytes() + channel_scales_.bytes() + segments_.bytes();
  }

  const DeviceMatrixView& view() const { return view_; }

 private:
  std::vector<DeviceSegment> cut_into_steps();
  void send_panels(const MatrixSource& matrix, Backend& device, Staging& staging);

  Reduction reduction_;
  DeviceMatrixView view_;
  Buffer steps_;
  Buffer channel_scales_;
  Buffer segments_;
};

}  // namespace paceline::kernels::cuda
