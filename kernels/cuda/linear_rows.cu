#include "kernels/cuda/linear_rows.h"

#include <algorithm>
#include <bit>
#include <cstdint>

#include "kernels/core/exact_math.h"
#include "kernels/core/half.h"
#include "kernels/core/quantize.h"
#include "kernels/cuda/block.h"
#include "kernels/cuda/elements.h"
#include "kernels/cuda/intrinsics.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/partials.h"
#include "kernels/cuda/row_sum.h"
#include "kernels/cuda/step_inputs.h"

namespace paceline::kernels::cuda {
namespace {

/// What the kernels read and write: `in` as LinearParams and LinearInput say.
struct LayOut {
  DeviceMatrixView weight;
  const float* in = nullptr;
  std::int64_t rows = 0;     // M
  std::byte* out = nullptr;  // [rows up to a multiple of 8, panel_steps, row_bytes]
  unsigned* zeroed = nullptr;
  std::int64_t zeroed_count = 0;
  // Elements from a row to the next where rows are not cut into steps; of `weight` only format,
  // cols and panel_steps are there then.
  std::int64_t stride = 0;
};

/// Where a step of a row's tile begins.
template <WeightFormat kFormat>
__device__ std::byte* step_of(const LayOut& to, std::int64_t row, std::int64_t step) {
  return to.out + (row / kTileRows * to.weight.panel_steps + step) * step_layout(kFormat).row_bytes;
}

/// Input `col` of a row: value(col), rounded.
template <WeightFormat kFormat, typename Value>
__device__ void lay_out_floats(const LayOut& to, std::int64_t row, int part, int parts,
                               const Value& value) {
  constexpr int kInputs = step_layout(kFormat).inputs;
  const std::int64_t count = std::int64_t{to.weight.panel_steps} * kInputs;
  for (std::int64_t i = std::int64_t{part} * blockDim.x + threadIdx.x; i < count;
       i += std::int64_t{parts} * blockDim.x) {
    const auto step = static_cast<std::int32_t>(i / kInputs);
    const int input = static_cast<int>(i % kInputs);
    const std::int64_t col = col_of(to.weight, step, input, kInputs);
    const float x = col >= 0 ? value(col) : 0.0f;
    std::byte* at = step_of<kFormat>(to, row, step) +
                    row_offset(kFormat, static_cast<int>(row % kTileRows), input);
    if constexpr (kFormat == WeightFormat::kFp32) {
      *reinterpret_cast<float*>(at) = x;
    } else if constexpr (kFormat == WeightFormat::kFp8) {
      *reinterpret_cast<std::uint16_t*>(at) = fp32_to_fp16(x * (1.0f / kFp8RowScale));
    } else {
      *reinterpret_cast<std::uint16_t*>(at) =
          kFormat == WeightFormat::kBf16 ? fp32_to_bf16(x) : fp32_to_fp16(x);
    }
  }
}

/// The same, quantized. A warp takes a group, which is a step, each lane every 32nd of its inputs.
template <WeightFormat kFormat, typename Value>
__device__ void lay_out_integers(const LayOut& to, std::int64_t row, int part, int parts,
                                 const Value& value) {
  constexpr int kGroup = step_layout(kFormat).inputs;
  constexpr int kPerLane = kGroup / kWarpThreads;
  const int lane = lane_of_warp();
  const int row_of_tile = static_cast<int>(row % kTileRows);
  for (std::int64_t group = std::int64_t{part} * warps_of_block() + warp_of_block();
       group < to.weight.panel_steps; group += std::int64_t{parts} * warps_of_block()) {
    float values[kPerLane];
    std::uint32_t largest = 0;
    for (int j = 0; j < kPerLane; ++j) {
      const std::int64_t col = group * kGroup + j * kWarpThreads + lane;
      values[j] = col < to.weight.cols ? value(col) : 0.0f;
      largest = std::max(largest, std::bit_cast<std::uint32_t>(values[j]) & 0x7fffffffu);
    }
    largest = reduce_warp(largest, [](std::uint32_t a, std::uint32_t b) { return a > b ? a : b; });
    const GroupScale scale = group_scale(largest);
    std::byte* at = step_of<kFormat>(to, row, group);
    std::int32_t sum = 0;
    for (int j = 0; j < kPerLane; ++j) {
      const std::int8_t q = quantize_element(values[j], scale);
      sum += q;
      at[row_offset(kFormat, row_of_tile, j * kWarpThreads + lane)] = static_cast<std::byte>(q);
    }
    auto* scales = reinterpret_cast<float*>(at + step_layout(kFormat).row_values);
    if (lane == 0) scales[row_of_tile] = scale.scale;
    if constexpr (kFormat == WeightFormat::kInt4Group) {
      sum = reduce_warp(sum, [](std::int32_t a, std::int32_t b) { return a + b; });
      if (lane == 0) scales[kTileRows + row_of_tile] = scale.scale * static_cast<float>(sum);
    }
  }
}

/// Row by row: a bf16 or fp16 matrix's of RowMajorMatrix.
template <WeightFormat kFormat, typename Value>
__device__ void lay_out_row_major(const LayOut& to, std::int64_t row, int part, int parts,
                                  const Value& value) {
  auto* const out = reinterpret_cast<std::uint16_t*>(to.out) + row * to.stride;
  for (std::int64_t col = std::int64_t{part} * blockDim.x + threadIdx.x; col < to.stride;
       col += std::int64_t{parts} * blockDim.x) {
    const float x = col < to.weight.cols ? value(col) : 0.0f;
    out[col] = kFormat == WeightFormat::kBf16 ? fp32_to_bf16(x) : fp32_to_fp16(x);
  }
}

/// This block's part of a row: input `col` is value(col).
template <WeightFormat kFormat, typename Value>
__device__ void lay_out_row(const LayOut& to, std::int64_t row, int part, int parts,
                            const Value& value) {
  if constexpr (RowMajorMatrix::holds(kFormat)) {
    if (to.stride > 0) return lay_out_row_major<kFormat>(to, row, part, parts, value);
  }
  if constexpr (activation_group(kFormat) == 0) {
    lay_out_floats<kFormat>(to, row, part, parts, value);
  } else {
    lay_out_integers<kFormat>(to, row, part, parts, value);
  }
}

__device__ void write_zeros(const LayOut& to) {
  for (std::int64_t i = first_element(); i < to.zeroed_count; i += element_step()) to.zeroed[i] = 0;
}

constexpr int kElementThreads = 256;

/// LinearInput's kPlain and kSiluMul: some blocks a row.
template <WeightFormat kFormat>
__global__ void __launch_bounds__(kElementThreads)
    lay_out_elements_kernel(const LayOut to, bool gated, int parts) {
  join_stream();
  write_zeros(to);
  const std::int64_t row = blockIdx.x / parts;
  const std::int64_t cols = to.weight.cols;
  lay_out_row<kFormat>(to, row, static_cast<int>(blockIdx.x % parts), parts, [&](std::int64_t col) {
    if (row >= to.rows) return 0.0f;
    if (!gated) return to.in[row * cols + col];
    const float gate = to.in[row * 2 * cols + col];
    const float up = to.in[row * 2 * cols + cols + col];
    return gate / (1.0f + exact::exp(-gate)) * up;
  });
}

/// LinearInput's kRmsNorm and kSumRmsNorm.
struct NormStage {
  const float* norm = nullptr;
  float eps = 0;
  const float* partials = nullptr;
  Merges merges;         // none: kRmsNorm
  float* sum = nullptr;  // kRmsNorm: null
};

/// sum[i] = in[i] + the partials' sum, of a row.
__device__ void add_to_row(const NormStage& stage, const LayOut& to, std::int64_t row) {
  constexpr int kAhead = 4;  // of a thread's loads at the same time
  const std::int64_t width = to.weight.cols;
  const std::int64_t size = to.rows * width;
  const float* const in = to.in + row * width;
  const float* const partials = stage.partials + row * width;
  float* const sum = stage.sum + row * width;
  for (std::int64_t i = threadIdx.x; i < width; i += kAhead * std::int64_t{blockDim.x}) {
    const float* elements[kAhead];
    float x[kAhead];
    PACELINE_UNROLL
    for (int j = 0; j < kAhead; ++j) {
      // Beyond the row: its last element once more.
      const std::int64_t at = std::min(i + j * std::int64_t{blockDim.x}, width - 1);
      elements[j] = partials + at;
      x[j] = in[at];
    }
    add_partials(
        elements, size, stage.merges.count, [&](int p) { return stage.merges.after[p]; },
        [&](int j, const float* added, int) { x[j] += *added; });
    PACELINE_UNROLL
    for (int j = 0; j < kAhead; ++j) {
      const std::int64_t at = i + j * std::int64_t{blockDim.x};
      if (at < width) sum[at] = x[j];
    }
  }
  __syncthreads();
}

constexpr int kMostNormThreads = 1024;

/// A block for each row.
template <WeightFormat kFormat>
__global__ void __launch_bounds__(kMostNormThreads)
    lay_out_normed_kernel(const LayOut to, const NormStage stage) {
  join_stream();
  write_zeros(to);
  const std::int64_t row = blockIdx.x;
  if (row >= to.rows) {
    return lay_out_row<kFormat>(to, row, 0, 1, [](std::int64_t) { return 0.0f; });
  }
  const std::int64_t width = to.weight.cols;
  if (stage.merges.count > 0) add_to_row(stage, to, row);
  const float* const x = (stage.merges.count > 0 ? stage.sum : to.in) + row * width;
  const float scale = rms_norm_scale(x, width, stage.eps);
  const float* const chunk = width <= kRowChunk<float> ? dynamic_shared<float>() : x;
  lay_out_row<kFormat>(to, row, 0, 1,
                       [&](std::int64_t col) { return chunk[col] * scale * stage.norm[col]; });
}

// ---- the host's part

/// Threads that take four elements each, whole warps.
int threads_of_row(std::int64_t width) {
  const std::int64_t wanted = (width / 4 + kWarpThreads - 1) / kWarpThreads * kWarpThreads;
  return static_cast<int>(std::clamp<std::int64_t>(wanted, kWarpThreads, kMostNormThreads));
}

/// Blocks that share a row: as many as there are groups for their warps, or elements for their
/// threads, while rows are few.
template <WeightFormat kFormat>
int parts_of_row(const DeviceMatrixView& weight, std::int64_t rows) {
  constexpr std::int64_t kBlocksEnough = 2048;
  constexpr std::int64_t kWarps = kElementThreads / kWarpThreads;
  const std::int64_t steps =
      activation_group(kFormat) != 0
          ? weight.panel_steps
          : std::int64_t{weight.panel_steps} * step_layout(kFormat).inputs / kWarpThreads;
  const std::int64_t most = std::max<std::int64_t>(1, (steps + kWarps - 1) / kWarps);
  return static_cast<int>(std::clamp<std::int64_t>(kBlocksEnough / rows, 1, most));
}

/// `rows` are to.rows, and those that fill up its last tile.
template <WeightFormat kFormat>
void lay_out(const LayOut& to, const LinearInput& input, std::int64_t rows, cudaStream_t stream) {
  using Kind = LinearInput::Kind;
  if (rows == 0) return;
  if (input.kind == Kind::kPlain || input.kind == Kind::kSiluMul) {
    const int parts = parts_of_row<kFormat>(to.weight, rows);
    launch("linear", {rows * parts, kElementThreads}, stream, lay_out_elements_kernel<kFormat>, to,
           input.kind == Kind::kSiluMul, parts);
    return;
  }
  NormStage stage{input.norm, input.eps, input.partials, {}, input.sum};
  if (input.kind == Kind::kSumRmsNorm) stage.merges = merges_of(input.merges);
  const std::int64_t width = to.weight.cols;
  launch("linear", shape_of_rows<float>(rows, width, threads_of_row(width)), stream,
         lay_out_normed_kernel<kFormat>, to, stage);
}

}  // namespace

void lay_out_rows(const DeviceMatrixView& weight, const LinearParams& params, std::int64_t tiles,
                  std::byte* out, std::span<unsigned> zeroed, cudaStream_t stream) {
  const LayOut to{weight, params.in, params.rows, out, zeroed.data(), std::ssize(zeroed)};
  const std::int64_t rows = tiles * kTileRows;
  switch (weight.format) {
    case WeightFormat::kFp32:
      return lay_out<WeightFormat::kFp32>(to, params.input, rows, stream);
    case WeightFormat::kBf16:
      return lay_out<WeightFormat::kBf16>(to, params.input, rows, stream);
    case WeightFormat::kFp16:
      return lay_out<WeightFormat::kFp16>(to, params.input, rows, stream);
    case WeightFormat::kFp8:
      return lay_out<WeightFormat::kFp8>(to, params.input, rows, stream);
    case WeightFormat::kInt8Channel:
      return lay_out<WeightFormat::kInt8Channel>(to, params.input, rows, stream);
    case WeightFormat::kInt8Group:
      return lay_out<WeightFormat::kInt8Group>(to, params.input, rows, stream);
    case WeightFormat::kInt4Group:
      return lay_out<WeightFormat::kInt4Group>(to, params.input, rows, stream);
  }
}

void lay_out_rows(const RowMajorMatrix& weight, const LinearParams& params, std::uint16_t* out,
                  cudaStream_t stream) {
  constexpr int kInputs = step_layout(WeightFormat::kBf16).inputs;
  DeviceMatrixView view{.format = weight.format(), .cols = weight.cols()};
  view.panel_steps = static_cast<std::int32_t>((weight.stride() + kInputs - 1) / kInputs);
  const LayOut to{.weight = view,
                  .in = params.in,
                  .rows = params.rows,
                  .out = reinterpret_cast<std::byte*>(out),
                  .stride = weight.stride()};
  if (weight.format() == WeightFormat::kBf16) {
    lay_out<WeightFormat::kBf16>(to, params.input, params.rows, stream);
  } else {
    lay_out<WeightFormat::kFp16>(to, params.input, params.rows, stream);
  }
}

}  // namespace paceline::kernels::cuda
