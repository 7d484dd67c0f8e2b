#include "kernels/cuda/device_matrix.h"

#include <algorithm>
#include <optional>
#include <span>

#include "kernels/core/device_memory.h"
#include "kernels/core/reduction.h"
#include "kernels/cuda/linear_weights.h"

namespace paceline::kernels::cuda {
namespace {

/// Where a piece's arrays stand in its bytes.
struct PieceLayout {
  std::size_t scales = 0;
  std::size_t minimums = 0;
  std::size_t bytes = 0;

  PieceLayout(const RowBytes& row, std::int64_t rows) {
    const auto place = [&](std::size_t of_row) {
      constexpr std::size_t kAlignment = 16;
      const std::size_t at = bytes;
      const std::size_t size = static_cast<std::size_t>(rows) * of_row;
      bytes += (size + kAlignment - 1) / kAlignment * kAlignment;
      return at;
    };
    place(row.values);
    scales = place(row.scales);
    minimums = place(row.minimums);
  }
  template <typename Byte>
  RowArrays<Byte> arrays(Byte* piece) const {
    return {piece, piece + scales, piece + minimums};
  }
};

}  // namespace

DeviceMatrix::DeviceMatrix(const MatrixSource& matrix, const Reduction& reduction, Backend& device,
                           Staging& staging)
    : reduction_(reduction) {
  check_reduction(reduction_, matrix.format(), matrix.cols());
  view_ = {.format = matrix.format(),
           .rows = matrix.rows(),
           .cols = matrix.cols(),
           .panels = (matrix.rows() + kPanel - 1) / kPanel};
  const std::vector<DeviceSegment> segments = cut_into_steps();
  view_.segments = upload(device, segments_, std::span<const DeviceSegment>(segments));
  send_panels(matrix, device, staging);
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

void DeviceMatrix::send_panels(const MatrixSource& matrix, Backend& device, Staging& staging) {
  const auto panel_bytes =
      static_cast<std::int64_t>(view_.panel_steps) * step_layout(view_.format).bytes;
  auto* steps = reserve<std::byte>(device, steps_, view_.panels * panel_bytes);
  view_.steps = steps;
  float* scales = nullptr;
  if (has_channel_scales(view_.format)) {
    scales = reserve<float>(device, channel_scales_, view_.panels * kPanel);
    view_.channel_scales = scales;
  }
  if (panel_bytes == 0) return;
  const std::optional<NativeStream> native = device.native_stream();
  const auto stream = native ? static_cast<cudaStream_t>(native->stream) : nullptr;
  const RowBytes row = row_bytes(view_.format, view_.cols);
  const auto panel_rows_bytes = PieceLayout(row, kPanel).bytes;
  const std::int64_t at_once =
      std::max<std::int64_t>(1,
                             static_cast<std::int64_t>(staging.piece_bytes() / panel_rows_bytes)) *
      kPanel;
  for (std::int64_t first = 0; first < view_.rows; first += at_once) {
    const IndexRange rows{first, std::min(first + at_once, view_.rows)};
    const PieceLayout piece(row, rows.size());
    staging.send(
        piece.bytes,
        [&](std::byte* host) { read_piece(matrix, rows, piece.arrays(host), staging.pool()); },
        [&](const std::byte* copy) {
          lay_out_weights(view_, piece.arrays(copy), first, rows.size(), steps, scales, stream);
        },
        stream);
  }
}

}  // namespace paceline::kernels::cuda
