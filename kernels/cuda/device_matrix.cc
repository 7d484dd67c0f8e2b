#include "kernels/cuda/device_matrix.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

#include "kernels/core/device_memory.h"
#include "kernels/core/error.h"
#include "kernels/core/reduction.h"

namespace paceline::kernels::cuda {
namespace {

// What is packed on the host before it is copied to the device.
constexpr std::size_t kChunkBytes = std::size_t{16} << 20;

/// Packs steps of one format.
class StepPacker {
 public:
  explicit StepPacker(const HostMatrix& matrix)
      : matrix_(matrix),
        layout_(step_layout(matrix.format)),
        row_(row_bytes(matrix.format, matrix.cols)) {}

  /// Columns [first, first + count) of a row, at most a step's, into their places in a step.
  void pack(std::int64_t row, std::int64_t first, int count, std::byte* step) const {
    const int output = static_cast<int>(row % kPanel);
    if (matrix_.format == WeightFormat::kInt4Group) {
      pack_nibbles(row, first, output, step);
    } else {
      pack_elements(row, first, count, output, step);
    }
    const std::int64_t group = first / kWeightGroup;
    std::byte* scale = step + layout_.values + output * 2;
    if (row_.scales > 0 && matrix_.format != WeightFormat::kInt8Channel) {
      std::memcpy(scale, of_row(matrix_.scales, row_.scales, row) + group * 2, 2);
    }
    if (row_.minimums > 0) {
      std::memcpy(scale + kPanel * 2, of_row(matrix_.minimums, row_.minimums, row) + group * 2, 2);
    }
  }

 private:
  static const std::byte* of_row(const std::vector<std::byte>& bytes, std::size_t size,
                                 std::int64_t row) {
    return bytes.data() + static_cast<std::size_t>(row) * size;
  }

  void pack_nibbles(std::int64_t row, std::int64_t first, int output, std::byte* step) const {
    const std::byte* from = of_row(matrix_.values, row_.values, row) + first / 2;
    for (int input = 0; input < layout_.inputs; ++input) {
      const std::byte q = (input % 2 == 0 ? from[input / 2] : from[input / 2] >> 4) & std::byte{15};
      step[weight_offset(matrix_.format, output, input)] |= output < 8 ? q : q << 4;
    }
  }

  // In runs of inputs that stand together: 4 of them, or as many as a register holds.
  void pack_elements(std::int64_t row, std::int64_t first, int count, int output,
                     std::byte* step) const {
    const WeightFormat format = matrix_.format;
    const bool is_fp32 = format == WeightFormat::kFp32;
    const bool is_int8 = activation_group(format) != 0;
    const int size = is_fp32 ? 4 : is_int8 ? 1 : 2;
    std::array<std::byte, 64> inputs{};
    // -0 behind the last; int8's activations are 0 there.
    if (!is_int8) {
      for (int i = count; i < layout_.inputs; ++i) inputs[i * size + size - 1] = std::byte{0x80};
    }
    std::memcpy(inputs.data(), of_row(matrix_.values, row_.values, row) + first * size,
                static_cast<std::size_t>(count * size));
    const int run = is_fp32 ? 4 : 4 / size;
    for (int input = 0; input < layout_.inputs; input += run) {
      std::memcpy(step + weight_offset(format, output, input), inputs.data() + input * size,
                  static_cast<std::size_t>(run * size));
    }
  }

  const HostMatrix& matrix_;
  StepLayout layout_;
  RowBytes row_;
};

void check_bytes(const HostMatrix& matrix) {
  const RowBytes row = row_bytes(matrix.format, matrix.cols);
  const auto rows = static_cast<std::size_t>(matrix.rows);
  check(matrix.values.size() == row.values * rows && matrix.scales.size() == row.scales * rows &&
            matrix.minimums.size() == row.minimums * rows,
        "a matrix [{}, {}] of {} bytes, {} of scales, {} of minimums", matrix.rows, matrix.cols,
        matrix.values.size(), matrix.scales.size(), matrix.minimums.size());
}

}  // namespace

DeviceMatrix::DeviceMatrix(const HostMatrix& matrix, const Reduction& reduction, Backend& device)
    : reduction_(reduction) {
  check_bytes(matrix);
  check_reduction(reduction_, matrix.format, matrix.cols);
  view_ = {.format = matrix.format,
           .rows = matrix.rows,
           .cols = matrix.cols,
           .panels = (matrix.rows + kPanel - 1) / kPanel};
  const std::vector<DeviceSegment> segments = cut_into_steps();
  view_.segments = upload(device, segments_, std::span<const DeviceSegment>(segments));
  upload_panels(matrix, segments, device);
  if (matrix.format == WeightFormat::kInt8Channel) {
    std::vector<float> scales(static_cast<std::size_t>(view_.panels * kPanel));
    if (!matrix.scales.empty()) {
      std::memcpy(scales.data(), matrix.scales.data(), matrix.scales.size());
    }
    view_.channel_scales = upload(device, channel_scales_, std::span<const float>(scales));
  }
  device.synchronize();  // before what was copied is gone
}

std::vector<DeviceSegment> DeviceMatrix::cut_into_steps() {
  const int inputs = step_layout(view_.format).inputs;
  std::vector<DeviceSegment> segments;
  for (const Reduction::Segment& segment : reduction_.segments) {
    const auto steps = static_cast<std::int32_t>((segment.cols.size() + inputs - 1) / inputs);
    segments.push_back(
        {segment.cols.begin, segment.cols.size(), view_.panel_steps, steps, segment.merges});
    view_.panel_steps += steps;
  }
  view_.segment_count = static_cast<std::int32_t>(segments.size());
  return segments;
}

void DeviceMatrix::upload_panels(const HostMatrix& matrix,
                                 const std::vector<DeviceSegment>& segments, Backend& device) {
  const StepLayout layout = step_layout(view_.format);
  const auto panel_bytes = static_cast<std::size_t>(view_.panel_steps) * layout.bytes;
  auto* to =
      reserve<std::byte>(device, steps_, view_.panels * static_cast<std::int64_t>(panel_bytes));
  view_.steps = to;
  if (panel_bytes == 0) return;
  const StepPacker packer(matrix);
  const auto at_once =
      static_cast<std::int64_t>(std::max<std::size_t>(1, kChunkBytes / panel_bytes));
  std::vector<std::byte> chunk;
  for (std::int64_t first = 0; first < view_.panels; first += at_once) {
    const std::int64_t count = std::min(at_once, view_.panels - first);
    chunk.assign(static_cast<std::size_t>(count) * panel_bytes, std::byte{0});
    const std::int64_t end = std::min((first + count) * kPanel, view_.rows);
    for (std::int64_t row = first * kPanel; row < end; ++row) {
      std::byte* panel =
          chunk.data() + static_cast<std::size_t>(row / kPanel - first) * panel_bytes;
      for (const DeviceSegment& segment : segments) {
        for (std::int32_t s = 0; s < segment.steps; ++s) {
          const std::int64_t done = std::int64_t{s} * layout.inputs;
          packer.pack(row, segment.first_col + done,
                      static_cast<int>(std::min<std::int64_t>(layout.inputs, segment.cols - done)),
                      panel + std::int64_t{segment.first_step + s} * layout.bytes);
        }
      }
    }
    device.upload(to + static_cast<std::size_t>(first) * panel_bytes, chunk.data(), chunk.size());
    device.synchronize();  // before the chunk is used again
  }
}

}  // namespace paceline::kernels::cuda
