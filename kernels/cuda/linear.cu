#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/core/reduction.h"
#include "kernels/cuda/block.h"
#include "kernels/cuda/device_matrix.h"
#include "kernels/cuda/elements.h"
#include "kernels/cuda/intrinsics.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/linear_rows.h"
#include "kernels/cuda/linear_steps.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/partials.h"

namespace paceline::kernels::cuda {
namespace {

constexpr int kMostWarpsOfBlock = 4;
// What a block of that many warps has for steps on their way from device memory: as much as every
// GPU gives without being asked.
constexpr int kSharedBytes = 48 * 1024;

/// The steps that a block works on at a time, or that are on their way to it. Which tile, how many
/// warps and steps there are decides nothing about a sum's order.
template <WeightFormat kFormat, int kTiles>
struct Stages {
  static constexpr int kWeightBytes = step_layout(kFormat).bytes;    // of a warp's panel
  static constexpr int kTileBytes = step_layout(kFormat).row_bytes;  // of a tile
  static constexpr int kCount =
      kSharedBytes / (kMostWarpsOfBlock * kWeightBytes + kTiles * kTileBytes);
  static_assert(kCount >= 2);
};

/// A block takes as many panels as it has warps, one segment, and kTiles tiles of rows. The weights
/// of a panel and segment stand one behind the other and are read once.
/// rows [row blocks, kTiles, panel_steps, row_bytes]; sums [segments, row_count, weight.rows].
template <WeightFormat kFormat, int kTiles>
__global__ void __launch_bounds__(kMostWarpsOfBlock* kWarpThreads)
    linear_kernel(const DeviceMatrixView weight, const std::byte* rows, std::int64_t row_count,
                  std::int64_t row_blocks, float* sums) {
  using Of = Stages<kFormat, kTiles>;
  constexpr int kChunk = 16;  // bytes of a copy
  // Row blocks that read the same weights run at the same time.
  const std::int64_t row_block = blockIdx.x % row_blocks;
  const std::int64_t rest = blockIdx.x / row_blocks;
  const auto segment_index = static_cast<std::int32_t>(rest % weight.segment_count);
  const std::int64_t panel = rest / weight.segment_count * warps_of_block() + warp_of_block();
  const bool has_panel = panel < weight.panels;  // the last block's warps may lack one
  const DeviceSegment segment = weight.segments[segment_index];

  const std::byte* weights_from =
      weight.steps + (panel * weight.panel_steps + segment.first_step) * Of::kWeightBytes;
  const std::int64_t tile_stride = std::int64_t{weight.panel_steps} * Of::kTileBytes;
  const std::byte* rows_from =
      rows + row_block * kTiles * tile_stride + std::int64_t{segment.first_step} * Of::kTileBytes;
  auto* const stages = dynamic_shared<std::byte>();
  const int stage_bytes = warps_of_block() * Of::kWeightBytes + kTiles * Of::kTileBytes;
  const int rows_at = warps_of_block() * Of::kWeightBytes;  // in a stage
  const int weights_at = warp_of_block() * Of::kWeightBytes;

  AsyncCopies copies;
  const auto copy_step = [&](int step) {
    if (step < segment.steps) {
      std::byte* stage = stages + step % Of::kCount * stage_bytes;
      if (has_panel) {
        const std::byte* from = weights_from + std::int64_t{step} * Of::kWeightBytes;
        for (int i = lane_of_warp() * kChunk; i < Of::kWeightBytes; i += kWarpThreads * kChunk) {
          copies.copy16(stage + weights_at + i, from + i);
        }
      }
      const std::byte* from = rows_from + std::int64_t{step} * Of::kTileBytes;
      for (int i = static_cast<int>(threadIdx.x) * kChunk; i < kTiles * Of::kTileBytes;
           i += static_cast<int>(blockDim.x) * kChunk) {
        copies.copy16(stage + rows_at + i,
                      from + i / Of::kTileBytes * tile_stride + i % Of::kTileBytes);
      }
    }
    copies.commit();
  };

  float own[kTiles][4] = {};
  for (int step = 0; step < Of::kCount - 1; ++step) copy_step(step);
  for (int step = 0; step < segment.steps; ++step) {
    copies.wait<Of::kCount - 2>();
    // This step has come for all, and all are done with the one before, whose place is free.
    __syncthreads();
    copy_step(step + Of::kCount - 1);
    const std::byte* stage = stages + step % Of::kCount * stage_bytes;
    if (has_panel) add_step<kFormat>(stage + weights_at, stage + rows_at, own);
  }

  if (!has_panel) return;
  PACELINE_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    PACELINE_UNROLL
    for (int i = 0; i < 4; ++i) {
      const std::int64_t row =
          (row_block * kTiles + tile) * kTileRows + lane_of_warp() % 4 * 2 + i % 2;
      const std::int64_t output = panel * kPanel + lane_of_warp() / 4 + i / 2 * 8;
      if (row >= row_count || output >= weight.rows) continue;
      float sum = own[tile][i];
      if constexpr (kFormat == WeightFormat::kInt8Channel) {
        if (segment.steps > 0) sum *= weight.channel_scales[output];
      }
      sums[(segment_index * row_count + row) * weight.rows + output] = sum;
    }
  }
}

/// sums [segments, size], out [the reduction's outputs, size].
__global__ void merge_segments_kernel(const DeviceMatrixView weight, const float* sums,
                                      std::int64_t size, float* out) {
  for (std::int64_t i = first_element(); i < size; i += element_step()) {
    float stack[kMaxReductionDepth];
    const int outputs = add_partials(
        sums + i, size, weight.segment_count,
        [&](int segment) { return weight.segments[segment].merges; }, stack);
    for (int o = 0; o < outputs; ++o) out[o * size + i] = stack[o];
  }
}

// ---- the host's part

/// How the rows are dealt to blocks.
struct RowBlocks {
  int tiles = 1;  // of a block: 1, 2, 4 or 8
  std::int64_t blocks = 0;
};

RowBlocks row_blocks(std::int64_t rows) {
  constexpr int kMostTiles = 8;
  RowBlocks dealt;
  while (dealt.tiles < kMostTiles && dealt.tiles * kTileRows < rows) dealt.tiles *= 2;
  dealt.blocks = (rows + dealt.tiles * kTileRows - 1) / (dealt.tiles * kTileRows);
  return dealt;
}

struct Workspace {
  std::size_t rows = 0;  // bytes
  std::size_t sums = 0;
};

Workspace workspace_of(const DeviceMatrixView& weight, const Reduction& reduction,
                       std::int64_t rows) {
  const RowBlocks dealt = row_blocks(rows);
  const std::int64_t steps = dealt.blocks * dealt.tiles * weight.panel_steps;
  Workspace workspace;
  workspace.rows = static_cast<std::size_t>(steps * step_layout(weight.format).row_bytes);
  if (reduction.outputs() != weight.segment_count) {
    workspace.sums =
        static_cast<std::size_t>(weight.segment_count * rows * weight.rows) * sizeof(float);
  }
  return workspace;
}

const DeviceMatrix& device_matrix(const PackedMatrix* matrix) {
  const auto* own = dynamic_cast<const DeviceMatrix*>(matrix);
  if (own == nullptr) fail("linear: the matrix was packed by another backend");
  return *own;
}

/// Several warps share a block's rows, as long as there are blocks for every multiprocessor.
int warps_for(std::int64_t tasks) {
  constexpr std::int64_t kBlocksEnough = 256;
  int warps = kMostWarpsOfBlock;
  while (warps > 1 && tasks / warps < kBlocksEnough) warps /= 2;
  return warps;
}

template <WeightFormat kFormat, int kTiles>
void multiply(const DeviceMatrixView& weight, const std::byte* rows, std::int64_t row_count,
              std::int64_t row_blocks, float* sums, cudaStream_t stream) {
  using Of = Stages<kFormat, kTiles>;
  const int warps = warps_for(weight.panels * weight.segment_count * row_blocks);
  const std::int64_t panel_blocks = (weight.panels + warps - 1) / warps;
  const int stage_bytes = warps * Of::kWeightBytes + kTiles * Of::kTileBytes;
  launch("linear",
         {panel_blocks * weight.segment_count * row_blocks, warps * kWarpThreads,
          static_cast<std::size_t>(Of::kCount) * stage_bytes},
         stream, linear_kernel<kFormat, kTiles>, weight, rows, row_count, row_blocks, sums);
}

template <WeightFormat kFormat>
void multiply(const DeviceMatrixView& weight, const std::byte* rows, std::int64_t row_count,
              float* sums, cudaStream_t stream) {
  const RowBlocks dealt = row_blocks(row_count);
  switch (dealt.tiles) {
    case 1:
      return multiply<kFormat, 1>(weight, rows, row_count, dealt.blocks, sums, stream);
    case 2:
      return multiply<kFormat, 2>(weight, rows, row_count, dealt.blocks, sums, stream);
    case 4:
      return multiply<kFormat, 4>(weight, rows, row_count, dealt.blocks, sums, stream);
    default:
      return multiply<kFormat, 8>(weight, rows, row_count, dealt.blocks, sums, stream);
  }
}

void multiply(const DeviceMatrixView& weight, const std::byte* rows, std::int64_t row_count,
              float* sums, cudaStream_t stream) {
  switch (weight.format) {
    case WeightFormat::kFp32:
      return multiply<WeightFormat::kFp32>(weight, rows, row_count, sums, stream);
    case WeightFormat::kBf16:
      return multiply<WeightFormat::kBf16>(weight, rows, row_count, sums, stream);
    case WeightFormat::kFp16:
      return multiply<WeightFormat::kFp16>(weight, rows, row_count, sums, stream);
    case WeightFormat::kInt8Channel:
      return multiply<WeightFormat::kInt8Channel>(weight, rows, row_count, sums, stream);
    case WeightFormat::kInt8Group:
      return multiply<WeightFormat::kInt8Group>(weight, rows, row_count, sums, stream);
    case WeightFormat::kInt4Group:
      return multiply<WeightFormat::kInt4Group>(weight, rows, row_count, sums, stream);
  }
}

}  // namespace

std::size_t linear_workspace_bytes(const PackedMatrix& weight, std::int64_t rows) {
  const Workspace workspace = workspace_of(device_matrix(&weight).view(), weight.reduction(), rows);
  return workspace.rows + workspace.sums;
}

void linear(const LinearParams& params, std::span<std::byte> workspace, cudaStream_t stream) {
  const DeviceMatrix& matrix = device_matrix(params.weight);
  const DeviceMatrixView& weight = matrix.view();
  const Workspace needed = workspace_of(weight, matrix.reduction(), params.rows);
  if (workspace.size() < needed.rows + needed.sums) {
    fail("linear: a workspace of " + std::to_string(workspace.size()) + " bytes, expected " +
         std::to_string(needed.rows + needed.sums));
  }
  std::byte* rows = workspace.data();
  const bool merges = needed.sums > 0;
  auto* sums = merges ? reinterpret_cast<float*>(rows + needed.rows) : params.out;
  const RowBlocks dealt = row_blocks(params.rows);
  lay_out_rows(weight, params.in, params.rows, dealt.blocks * dealt.tiles, rows, stream);
  multiply(weight, rows, params.rows, sums, stream);
  if (!merges) return;
  const std::int64_t size = params.rows * weight.rows;
  launch("linear", shape_of_elements(size), stream, merge_segments_kernel, weight, sums, size,
         params.out);
}

}  // namespace paceline::kernels::cuda
