#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/core/reduction.h"
#include "kernels/cuda/block.h"
#include "kernels/cuda/device_matrix.h"
#include "kernels/cuda/intrinsics.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/linear_rows.h"
#include "kernels/cuda/linear_steps.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/partials.h"

namespace paceline::kernels::cuda {
namespace {

constexpr int kMostWarpsOfBlock = 4;
// What a block of that many warps has for stages: as much as every GPU gives without being asked.
constexpr int kSharedBytes = 48 * 1024;

/// What a block computes at a time: each of its warps so many panels, all of them so many tiles of
/// rows. A block computes with one stage, some steps, while the next are on their way to it. None
/// of these numbers changes the order of a sum.
template <WeightFormat kFormat, int kPanelsOfWarp, int kTilesOfBlock>
struct Stages {
  static constexpr int kPanels = kPanelsOfWarp;
  static constexpr int kTiles = kTilesOfBlock;
  static constexpr int kWeightBytes = step_layout(kFormat).bytes;    // of a step and panel
  static constexpr int kTileBytes = step_layout(kFormat).row_bytes;  // of a step and tile
  static constexpr int kMostSteps =
      kSharedBytes / (kMostWarpsOfBlock * kPanels * kWeightBytes + kTiles * kTileBytes);
  static constexpr int kSteps = kMostSteps >= 16 ? 4 : kMostSteps >= 8 ? 2 : 1;  // of a stage
  static constexpr int kCount = kMostSteps / kSteps;
  static_assert(kCount >= 2);
  /// A stage's bytes: each warp's weights, then each tile's activations.
  static constexpr int kPanelStride = kSteps * kWeightBytes;
  static constexpr int kTileStride = kSteps * kTileBytes;
  static constexpr StepStrides kStrides{kPanelStride, kTileStride};
  static constexpr int bytes(int warps) {
    return warps * kPanels * kPanelStride + kTiles * kTileStride;
  }
};

/// A warp's copy of a multiple of 16 bytes.
__device__ void copy_by_warp(AsyncCopies& copies, std::byte* to, const std::byte* from, int bytes) {
  constexpr int kChunk = 16;
  for (int i = lane_of_warp() * kChunk; i < bytes; i += kWarpThreads * kChunk) {
    copies.copy16(to + i, from + i);
  }
}

/// The row and output of the i-th of this lane's four sums of a panel and a tile.
struct SumPlace {
  std::int64_t row, output;
  __device__ SumPlace(std::int64_t panel, std::int64_t tile, int i)
      : row(tile * kTileRows + lane_of_warp() % 4 * 2 + i % 2),
        output(panel * kPanel + lane_of_warp() / 4 + i / 2 * 8) {}
};

/// Where a product goes.
struct Products {
  std::int64_t row_count = 0;   // M
  float* sums = nullptr;        // [segments, M, N]
  unsigned* arrived = nullptr;  // [panel blocks, row blocks], zeros; null: the sums are the outputs
  float* out = nullptr;         // [outputs, M, N]
};

/// This lane's sums of a panel, a segment and the tiles from `first_tile` on.
template <WeightFormat kFormat, int kTiles>
__device__ void store_sums(const DeviceMatrixView& weight, const float (&own)[kTiles][4],
                           std::int64_t panel, std::int64_t first_tile, std::int32_t segment,
                           const Products& to) {
  PACELINE_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    PACELINE_UNROLL
    for (int i = 0; i < 4; ++i) {
      const SumPlace at(panel, first_tile + tile, i);
      if (at.row >= to.row_count || at.output >= weight.rows) continue;
      float sum = own[tile][i];
      if constexpr (has_channel_scales(kFormat)) {
        if constexpr (kFormat == WeightFormat::kFp8) sum *= kFp8RowScale;
        // Of no inputs: +0, whatever the scale.
        if (weight.segments[segment].steps > 0) sum *= weight.channel_scales[at.output];
      }
      to.sums[(segment * to.row_count + at.row) * weight.rows + at.output] = sum;
    }
  }
}

/// The outputs that come of all segments' sums, for the same places.
__device__ void merge_segments(const DeviceMatrixView& weight, std::int64_t panel,
                               std::int64_t first_tile, int tiles, const Products& of) {
  const std::int64_t size = of.row_count * weight.rows;
  for (int tile = 0; tile < tiles; ++tile) {
    std::int64_t places[4];
    const float* elements[4];
    PACELINE_UNROLL
    for (int i = 0; i < 4; ++i) {
      const SumPlace at(panel, first_tile + tile, i);
      const bool exists = at.row < of.row_count && at.output < weight.rows;
      places[i] = exists ? at.row * weight.rows + at.output : -1;
      elements[i] = of.sums + (exists ? places[i] : 0);
    }
    add_partials(
        elements, size, weight.segment_count,
        [&](int segment) { return weight.segments[segment].merges; },
        [&](int i, const float* stack, int outputs) {
          if (places[i] < 0) return;
          for (int o = 0; o < outputs; ++o) of.out[o * size + places[i]] = stack[o];
        });
  }
}

/// A block takes kPanels panels a warp, one segment, and kTiles tiles of rows. The weights
/// of a panel and segment stand one behind the other and are read once.
/// Where segments are merged, the block that comes last of all segments' does it, in their order.
/// rows [row blocks, kTiles, panel_steps, row_bytes]. As many blocks run on a multiprocessor as its
/// shared memory has room for, or, with 128 sums in a thread's registers, two.
template <WeightFormat kFormat, int kPanels, int kTiles>
__global__ void __launch_bounds__(kMostWarpsOfBlock* kWarpThreads, kPanels > 1 ? 2 : 4)
    linear_kernel(const DeviceMatrixView weight, const std::byte* rows, std::int64_t row_blocks,
                  const Products products) {
  using Of = Stages<kFormat, kPanels, kTiles>;
  // Row blocks that read the same weights run at the same time.
  const std::int64_t row_block = blockIdx.x % row_blocks;
  const std::int64_t rest = blockIdx.x / row_blocks;
  const auto segment_index = static_cast<std::int32_t>(rest % weight.segment_count);
  const std::int64_t panel =
      (rest / weight.segment_count * warps_of_block() + warp_of_block()) * kPanels;
  // The last block's warps may have fewer, or none.
  const int panels =
      static_cast<int>(std::clamp<std::int64_t>(weight.panels - panel, 0, std::int64_t{kPanels}));
  const DeviceSegment segment = weight.segments[segment_index];

  const std::int64_t panel_bytes = std::int64_t{weight.panel_steps} * Of::kWeightBytes;
  const std::byte* weights_from =
      weight.steps + panel * panel_bytes + std::int64_t{segment.first_step} * Of::kWeightBytes;
  const std::int64_t tile_bytes = std::int64_t{weight.panel_steps} * Of::kTileBytes;
  const std::byte* rows_from =
      rows + row_block * kTiles * tile_bytes + std::int64_t{segment.first_step} * Of::kTileBytes;
  auto* const stages = dynamic_shared<std::byte>();
  const int stage_bytes = Of::bytes(warps_of_block());
  const int weights_at = warp_of_block() * kPanels * Of::kPanelStride;  // in a stage
  const int rows_at = warps_of_block() * kPanels * Of::kPanelStride;

  AsyncCopies copies;
  const auto steps_of = [&](int stage) {
    return static_cast<int>(
        std::min<std::int64_t>(Of::kSteps, segment.steps - std::int64_t{stage} * Of::kSteps));
  };
  const auto copy_weights = [&](int stage) {
    std::byte* to = stages + stage % Of::kCount * stage_bytes + weights_at;
    for (int p = 0; p < panels; ++p) {
      copy_by_warp(copies, to + p * Of::kPanelStride,
                   weights_from + p * panel_bytes + std::int64_t{stage} * Of::kPanelStride,
                   steps_of(stage) * Of::kWeightBytes);
    }
  };
  const auto copy_rows = [&](int stage) {
    const std::int64_t first = std::int64_t{stage} * Of::kSteps;
    const int steps = steps_of(stage);
    std::byte* to = stages + stage % Of::kCount * stage_bytes;
    for (int tile = warp_of_block(); tile < kTiles; tile += warps_of_block()) {
      copy_by_warp(copies, to + rows_at + tile * Of::kTileStride,
                   rows_from + tile * tile_bytes + first * Of::kTileBytes, steps * Of::kTileBytes);
    }
  };

  // The first weights are on their way before the activations have been laid out.
  let_next_begin();
  for (int stage = 0; stage < Of::kCount - 1; ++stage) copy_weights(stage);
  await_stream();
  for (int stage = 0; stage < Of::kCount - 1; ++stage) {
    copy_rows(stage);
    copies.commit();  // the first has all of these weights
  }

  float own[kPanels][kTiles][4] = {};
  for (int stage = 0; stage * Of::kSteps < segment.steps; ++stage) {
    copies.wait<Of::kCount - 2>();
    // This stage has come for all, and all are done with the one before, whose place is free.
    __syncthreads();
    copy_weights(stage + Of::kCount - 1);
    copy_rows(stage + Of::kCount - 1);
    copies.commit();
    if (panels == 0) continue;
    __syncwarp();  // copies of no full round have split it
    const std::byte* from = stages + stage % Of::kCount * stage_bytes;
    const auto add = [&](int step) {  // for a panel that is not there, too: nobody looks at it
      add_step<kFormat, Of::kStrides>(from + weights_at + step * Of::kWeightBytes,
                                      from + rows_at + step * Of::kTileBytes, own);
    };
    const int left = segment.steps - stage * Of::kSteps;
    if (left >= Of::kSteps) {  // without a branch between them: their loads go ahead
      PACELINE_UNROLL
      for (int step = 0; step < Of::kSteps; ++step) add(step);
    } else {
      for (int step = 0; step < left; ++step) add(step);
    }
  }

  PACELINE_UNROLL
  for (int p = 0; p < kPanels; ++p) {
    if (p < panels) {
      store_sums<kFormat>(weight, own[p], panel + p, row_block * kTiles, segment_index, products);
    }
  }
  if (products.arrived == nullptr) return;
  unsigned* const arrived = products.arrived + rest / weight.segment_count * row_blocks + row_block;
  if (!is_last_of_blocks(arrived, static_cast<unsigned>(weight.segment_count))) return;
  for (int p = 0; p < panels; ++p) {
    merge_segments(weight, panel + p, row_block * kTiles, kTiles, products);
  }
}

// ---- the host's part

/// How a product is dealt to blocks.
struct Blocks {
  int panels = 1;            // of a warp
  int tiles = 1;             // of a block: 1, 2, 4, 8 or kManyTiles
  std::int64_t of_rows = 0;  // blocks that share the rows
};
constexpr int kFewPanels = 1;
constexpr int kMostFewTiles = 8;
// Of many rows each block takes 128, and 128 outputs: half as much is read for a product.
constexpr int kManyPanels = 2;
constexpr int kManyTiles = 16;

Blocks blocks_for(const DeviceMatrixView& weight, std::int64_t rows) {
  constexpr std::int64_t kBlocksEnough = 128;  // about one for each multiprocessor
  const auto parts = [](std::int64_t count, std::int64_t of_part) {
    return (count + of_part - 1) / of_part;
  };
  Blocks dealt{kManyPanels, kManyTiles, parts(rows, kManyTiles * kTileRows)};
  const std::int64_t panel_blocks = parts(weight.panels, kMostWarpsOfBlock * kManyPanels);
  if (rows > kMostFewTiles * kTileRows &&
      panel_blocks * weight.segment_count * dealt.of_rows >= kBlocksEnough) {
    return dealt;
  }
  dealt = {kFewPanels, 1, 0};
  while (dealt.tiles < kMostFewTiles && dealt.tiles * kTileRows < rows) dealt.tiles *= 2;
  dealt.of_rows = parts(rows, dealt.tiles * kTileRows);
  return dealt;
}

/// Bytes of each part, one behind the other.
struct Workspace {
  std::size_t rows = 0;
  std::size_t sums = 0;     // where segments are merged
  std::size_t arrived = 0;  // there too: a counter for each panel and row block, or fewer
};

Workspace workspace_of(const DeviceMatrixView& weight, const Reduction& reduction,
                       std::int64_t rows) {
  const Blocks dealt = blocks_for(weight, rows);
  const std::int64_t steps = dealt.of_rows * dealt.tiles * weight.panel_steps;
  Workspace workspace;
  workspace.rows = static_cast<std::size_t>(steps * step_layout(weight.format).row_bytes);
  if (reduction.outputs() != weight.segment_count) {
    workspace.sums =
        static_cast<std::size_t>(weight.segment_count * rows * weight.rows) * sizeof(float);
    workspace.arrived = static_cast<std::size_t>(weight.panels * dealt.of_rows) * sizeof(unsigned);
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

template <WeightFormat kFormat, int kPanels, int kTiles>
void multiply(const DeviceMatrixView& weight, const std::byte* rows, std::int64_t row_blocks,
              const Products& to, cudaStream_t stream) {
  using Of = Stages<kFormat, kPanels, kTiles>;
  const std::int64_t shares = (weight.panels + kPanels - 1) / kPanels;
  const int warps = kPanels == kManyPanels ? kMostWarpsOfBlock
                                           : warps_for(shares * weight.segment_count * row_blocks);
  const std::int64_t panel_blocks = (shares + warps - 1) / warps;
  launch("linear",
         {panel_blocks * weight.segment_count * row_blocks, warps * kWarpThreads,
          static_cast<std::size_t>(Of::kCount * Of::bytes(warps))},
         stream, linear_kernel<kFormat, kPanels, kTiles>, weight, rows, row_blocks, to);
}

template <WeightFormat kFormat>
void multiply(const DeviceMatrixView& weight, const std::byte* rows, const Products& to,
              cudaStream_t stream) {
  const Blocks dealt = blocks_for(weight, to.row_count);
  switch (dealt.tiles) {
    case 1:
      return multiply<kFormat, kFewPanels, 1>(weight, rows, dealt.of_rows, to, stream);
    case 2:
      return multiply<kFormat, kFewPanels, 2>(weight, rows, dealt.of_rows, to, stream);
    case 4:
      return multiply<kFormat, kFewPanels, 4>(weight, rows, dealt.of_rows, to, stream);
    case kMostFewTiles:
      return multiply<kFormat, kFewPanels, 8>(weight, rows, dealt.of_rows, to, stream);
    default:
      return multiply<kFormat, kManyPanels, kManyTiles>(weight, rows, dealt.of_rows, to, stream);
  }
}

void multiply(const DeviceMatrixView& weight, const std::byte* rows, const Products& to,
              cudaStream_t stream) {
  switch (weight.format) {
    case WeightFormat::kFp32:
      return multiply<WeightFormat::kFp32>(weight, rows, to, stream);
    case WeightFormat::kBf16:
      return multiply<WeightFormat::kBf16>(weight, rows, to, stream);
    case WeightFormat::kFp16:
      return multiply<WeightFormat::kFp16>(weight, rows, to, stream);
    case WeightFormat::kFp8:
      return multiply<WeightFormat::kFp8>(weight, rows, to, stream);
    case WeightFormat::kInt8Channel:
      return multiply<WeightFormat::kInt8Channel>(weight, rows, to, stream);
    case WeightFormat::kInt8Group:
      return multiply<WeightFormat::kInt8Group>(weight, rows, to, stream);
    case WeightFormat::kInt4Group:
      return multiply<WeightFormat::kInt4Group>(weight, rows, to, stream);
  }
}

}  // namespace

std::size_t linear_workspace_bytes(const PackedMatrix& weight, std::int64_t rows) {
  const Workspace workspace = workspace_of(device_matrix(&weight).view(), weight.reduction(), rows);
  return workspace.rows + workspace.sums + workspace.arrived;
}

void linear(const LinearParams& params, std::span<std::byte> workspace, cudaStream_t stream) {
  const DeviceMatrix& matrix = device_matrix(params.weight);
  const DeviceMatrixView& weight = matrix.view();
  const Workspace needed = workspace_of(weight, matrix.reduction(), params.rows);
  const std::size_t bytes = needed.rows + needed.sums + needed.arrived;
  if (workspace.size() < bytes) {
    fail("linear: a workspace of " + std::to_string(workspace.size()) + " bytes, expected " +
         std::to_string(bytes));
  }
  std::byte* const rows = workspace.data();
  Products to{params.rows, params.out, nullptr, params.out};
  if (needed.sums > 0) {
    to.sums = reinterpret_cast<float*>(rows + needed.rows);
    to.arrived = reinterpret_cast<unsigned*>(rows + needed.rows + needed.sums);
  }
  const Blocks dealt = blocks_for(weight, params.rows);
  lay_out_rows(weight, params, dealt.of_rows * dealt.tiles, rows,
               {to.arrived, needed.arrived / sizeof(unsigned)}, stream);
  multiply(weight, rows, to, stream);
}

}  // namespace paceline::kernels::cuda
