#include "kernels/cuda/linear_rows.h"

#include <algorithm>
#include <bit>
#include <cstdint>

#include "kernels/core/half.h"
#include "kernels/core/quantize.h"
#include "kernels/cuda/block.h"
#include "kernels/cuda/elements.h"
#include "kernels/cuda/launch.h"

namespace paceline::kernels::cuda {
namespace {

/// The input that stands at place `input` of a step; -1 where the segment has ended.
__device__ std::int64_t col_of(const DeviceMatrixView& weight, std::int32_t step, int input,
                               int inputs) {
  const DeviceSegment* segment = weight.segments;
  while (step >= segment->first_step + segment->steps) ++segment;
  const std::int64_t col = std::int64_t{step - segment->first_step} * inputs + input;
  return col < segment->cols ? segment->first_col + col : -1;
}

template <WeightFormat kFormat>
__global__ void lay_out_floats_kernel(const DeviceMatrixView weight, const float* in,
                                      std::int64_t rows, std::int64_t tiles, std::byte* out) {
  constexpr int kInputs = step_layout(kFormat).inputs;
  constexpr int kRowBytes = step_layout(kFormat).row_bytes;
  const std::int64_t row_inputs = std::int64_t{weight.panel_steps} * kInputs;
  const std::int64_t count = tiles * kTileRows * row_inputs;
  for (std::int64_t i = first_element(); i < count; i += element_step()) {
    const std::int64_t row = i / row_inputs;
    const auto step = static_cast<std::int32_t>(i % row_inputs / kInputs);
    const int input = static_cast<int>(i % kInputs);
    const std::int64_t col = row < rows ? col_of(weight, step, input, kInputs) : -1;
    const float value = col >= 0 ? in[row * weight.cols + col] : 0.0f;
    std::byte* to = out + (row / kTileRows * weight.panel_steps + step) * kRowBytes +
                    row_offset(kFormat, static_cast<int>(row % kTileRows), input);
    if constexpr (kFormat == WeightFormat::kFp32) {
      *reinterpret_cast<float*>(to) = value;
    } else {
      *reinterpret_cast<std::uint16_t*>(to) =
          kFormat == WeightFormat::kBf16 ? fp32_to_bf16(value) : fp32_to_fp16(value);
    }
  }
}

constexpr int kQuantizeThreads = 256;

/// A warp takes a row's group, which is a step, each lane every 32nd of its inputs.
template <WeightFormat kFormat>
__global__ void __launch_bounds__(kQuantizeThreads)
    quantize_rows_kernel(const DeviceMatrixView weight, const float* in, std::int64_t rows,
                         std::int64_t tiles, std::byte* out) {
  constexpr int kGroup = step_layout(kFormat).inputs;
  constexpr int kValues = step_layout(kFormat).row_values;
  constexpr int kRowBytes = step_layout(kFormat).row_bytes;
  constexpr int kPerLane = kGroup / kWarpThreads;
  const int lane = lane_of_warp();
  const std::int64_t groups = weight.panel_steps;
  const std::int64_t warps = std::int64_t{gridDim.x} * warps_of_block();
  for (std::int64_t i = std::int64_t{blockIdx.x} * warps_of_block() + warp_of_block();
       i < tiles * kTileRows * groups; i += warps) {
    const std::int64_t row = i / groups;
    const std::int64_t group = i % groups;
    float values[kPerLane];
    std::uint32_t largest = 0;
    for (int j = 0; j < kPerLane; ++j) {
      const std::int64_t col = group * kGroup + j * kWarpThreads + lane;
      values[j] = row < rows && col < weight.cols ? in[row * weight.cols + col] : 0.0f;
      largest = std::max(largest, std::bit_cast<std::uint32_t>(values[j]) & 0x7fffffffu);
    }
    largest = reduce_warp(largest, [](std::uint32_t a, std::uint32_t b) { return a > b ? a : b; });
    const GroupScale scale = group_scale(largest);
    std::byte* to = out + (row / kTileRows * groups + group) * kRowBytes;
    const int row_of_tile = static_cast<int>(row % kTileRows);
    std::int32_t sum = 0;
    for (int j = 0; j < kPerLane; ++j) {
      const std::int8_t q = quantize_element(values[j], scale);
      sum += q;
      to[row_offset(kFormat, row_of_tile, j * kWarpThreads + lane)] = static_cast<std::byte>(q);
    }
    auto* scales = reinterpret_cast<float*>(to + kValues);
    if (lane == 0) scales[row_of_tile] = scale.scale;
    if constexpr (kFormat == WeightFormat::kInt4Group) {
      sum = reduce_warp(sum, [](std::int32_t a, std::int32_t b) { return a + b; });
      if (lane == 0) scales[kTileRows + row_of_tile] = scale.scale * static_cast<float>(sum);
    }
  }
}

template <WeightFormat kFormat>
void lay_out(const DeviceMatrixView& weight, const float* in, std::int64_t rows, std::int64_t tiles,
             std::byte* out, cudaStream_t stream) {
  const std::int64_t steps = tiles * kTileRows * weight.panel_steps;
  if constexpr (activation_group(kFormat) == 0) {
    launch("linear", shape_of_elements(steps * step_layout(kFormat).inputs), stream,
           lay_out_floats_kernel<kFormat>, weight, in, rows, tiles, out);
  } else {
    LaunchShape shape = shape_of_elements(steps * kWarpThreads);
    shape.threads = kQuantizeThreads;
    launch("linear", shape, stream, quantize_rows_kernel<kFormat>, weight, in, rows, tiles, out);
  }
}

}  // namespace

void lay_out_rows(const DeviceMatrixView& weight, const float* in, std::int64_t rows,
                  std::int64_t tiles, std::byte* out, cudaStream_t stream) {
  switch (weight.format) {
    case WeightFormat::kFp32:
      return lay_out<WeightFormat::kFp32>(weight, in, rows, tiles, out, stream);
    case WeightFormat::kBf16:
      return lay_out<WeightFormat::kBf16>(weight, in, rows, tiles, out, stream);
    case WeightFormat::kFp16:
      return lay_out<WeightFormat::kFp16>(weight, in, rows, tiles, out, stream);
    case WeightFormat::kInt8Channel:
      return lay_out<WeightFormat::kInt8Channel>(weight, in, rows, tiles, out, stream);
    case WeightFormat::kInt8Group:
      return lay_out<WeightFormat::kInt8Group>(weight, in, rows, tiles, out, stream);
    case WeightFormat::kInt4Group:
      return lay_out<WeightFormat::kInt4Group>(weight, in, rows, tiles, out, stream);
  }
}

}  // namespace paceline::kernels::cuda
