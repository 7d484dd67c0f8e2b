#include "kernels/cuda/device_matrix.h"

#include <span>

#include "kernels/core/device_memory.h"
#include "kernels/core/reduction.h"
#include "kernels/cuda/linear_weights.h"

namespace paceline::kernels::cuda {
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
  staging.send_rows(matrix, kPanel, device,
                    [&](IndexRange rows, const StoredRows& copy, cudaStream_t stream) {
                      lay_out_weights(view_, copy, rows.begin, rows.size(), steps, scales, stream);
                    });
}

}  // namespace paceline::kernels::cuda
