#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/core/attention_order.h"
#include "kernels/cuda/attention_runs.h"
#include "kernels/cuda/attention_scores.h"
#include "kernels/cuda/attention_segments.h"
#include "kernels/cuda/attention_values.h"
#include "kernels/cuda/block.h"
#include "kernels/cuda/intrinsics.h"
#include "kernels/cuda/launch.h"

// AttentionMath::kBf16 (kernels/params.h): both products of attention on tensor cores.
//
// A block of threads takes one or two tiles of 16 queries (row, head) that read the same cache
// head, rows side by side, and goes through a segment in three phases, between barriers:
//
//   scores   each warp multiplies the queries by the 32 keys of a block of positions. The keys go
//            from the cache to registers as they stand there: attention_dim's order lets a lane
//            use 8 dimensions that stand together.
//   weights  each warp turns such scores to weights, rounded to bf16, at the same place in shared
//            memory: the layout of sums is that of the next product's operand.
//   values   each warp takes 16 (kInt8: 32) dimensions of the output and goes through all the
//            segment's values. A lane reads some of its own dimensions of the keys that are its
//            inputs; bytes that belong together are then put side by side, so that a tile's columns
//            are every 2nd (4th) dimension.
//
// So each byte of the cache is read once for all queries of the block, by one lane, and goes
// through no shared memory.
//
// Rows that see the same keys at the positions of a block form a run: those of one sequence, all
// keys in their own slots. Where a row's ancestors stand elsewhere it is a run of its own. Phases
// go from run to run; of the products of a tile a run keeps its own rows'.

namespace paceline::kernels::cuda {
namespace {

/// Which queries a block has; returns the largest of their positions, -1 if there are none. Needs a
/// barrier after it.
template <int kTiles>
__device__ std::int32_t find_queries(const AttentionParams& params, const HeadGroups& groups,
                                     const AttentionSplit::Place& at,
                                     TensorMemory<kTiles>& shared) {
  const int first = groups.first[at.kv_head];
  const int heads = groups.first[at.kv_head + 1] - first;
  const std::int64_t query = at.chunk * shared.kQueries + lane_of_warp();
  const bool exists = lane_of_warp() < shared.kQueries && query < params.rows * heads;
  const auto row = static_cast<std::int32_t>(exists ? query / heads : 0);
  const std::int32_t position = exists ? params.rows_at[row].position : -1;
  if (exists && warp_of_block() == 0) {
    shared.place[lane_of_warp()] = params.rows_at[row];
    shared.row[lane_of_warp()] = row;
    shared.head[lane_of_warp()] = groups.query_head[first + query % heads];
  }
  const unsigned queries = __ballot_sync(kWholeWarp, exists);
  if (threadIdx.x == 0) shared.count = __popc(queries);
  return reduce_warp(position, [](std::int32_t a, std::int32_t b) { return a > b ? a : b; });
}

// As attention.cu's.
template <KvFormat kFormat, int kDim, int kTiles>
__global__ void __launch_bounds__(kTensorThreads, 2)
    attention_tensor_kernel(const AttentionParams params, const HeadGroups groups,
                            const AttentionSplit split) {
  join_stream();
  using Values = TensorValues<kFormat, kDim, kTiles>;
  auto& shared = *dynamic_shared<TensorMemory<kTiles>>();
  const AttentionSplit::Place at = split.place(blockIdx.x);
  const std::int32_t last = find_queries(params, groups, at, shared);
  const std::int32_t from = split.states != nullptr ? at.segment * kAttentionSegment : 0;
  if (from > last) return;
  __syncthreads();
  const TensorRuns<kFormat, kDim, kTiles> runs{params, at.kv_head, shared};
  TensorScores<kFormat, kDim, kTiles> scores(runs);
  Values values(runs);
  scores.load_queries();

  const std::int32_t end = split.states != nullptr ? from : last;
  typename Values::Outputs all;
  for (std::int32_t next = from; next <= end; next += kAttentionSegment) {
    runs.find_runs(next);
    __syncthreads();
    runs.for_own_runs([&](const KeyRunPlace& run) { scores.score(next, run); });
    __syncthreads();
    runs.for_own_runs([&](const KeyRunPlace& run) { scores.weigh(next, run); });
    __syncthreads();
    scores.merge_states(next, next == from);
    typename Values::Outputs out;
    values.add_values(next, out);
    __syncthreads();
    if (next == from) {
      all = out;
    } else {
      values.merge_outputs(next, out, all);
    }
  }
  values.store(from, all, split, at.segment);
}

// ---- the host's part

/// Two tiles share what is read of the cache, where there are queries for them and registers and
/// shared memory have room: of which GPUs give 48 KiB without being asked for more.
bool has_two_tiles(const AttentionParams& params, std::int64_t heads) {
  static_assert(shared_bytes<2>(128) <= 48 * 1024 && shared_bytes<1>(kMostHeadDim) <= 48 * 1024);
  const int dim = params.kv.head_dim;
  return params.rows * heads > kTileQueries && params.kv.format == KvFormat::kBf16 &&
         (dim == 64 || dim == 128);
}

template <KvFormat kFormat, int kDim, int kTiles>
void launch_kernel(const AttentionParams& params, const HeadGroups& groups,
                   const AttentionSplit& split, cudaStream_t stream) {
  launch(
      "attention",
      {split.blocks(params.kv.num_heads), kTensorThreads, shared_bytes<kTiles>(params.kv.head_dim)},
      stream, attention_tensor_kernel<kFormat, kDim, kTiles>, params, groups, split);
}

template <KvFormat kFormat, int kTiles>
void launch_dim(const AttentionParams& params, const HeadGroups& groups,
                const AttentionSplit& split, cudaStream_t stream) {
  if (params.kv.head_dim == 64) {
    launch_kernel<kFormat, 64, kTiles>(params, groups, split, stream);
  } else if (params.kv.head_dim == 128) {
    launch_kernel<kFormat, 128, kTiles>(params, groups, split, stream);
  } else if constexpr (kTiles == 1) {
    launch_kernel<kFormat, 0, kTiles>(params, groups, split, stream);
  }
}

}  // namespace

int queries_of_tensor_block(const AttentionParams& params, std::int64_t heads) {
  return (has_two_tiles(params, heads) ? 2 : 1) * kTileQueries;
}

void attention_on_tensor_cores(const AttentionParams& params, const HeadGroups& groups,
                               const AttentionSplit& split, cudaStream_t stream) {
  if (params.kv.format == KvFormat::kFp32 || params.kv.head_dim % kTensorInputs != 0) {
    fail("attention in bf16: heads of " + std::to_string(params.kv.head_dim) + " elements in " +
         std::string(format_name(params.kv.format)) +
         ", expected a multiple of 16 and bf16 or int8");
  }
  int heads = 0;
  for (int kv = 0; kv < params.kv.num_heads; ++kv) {
    heads = std::max(heads, groups.first[kv + 1] - groups.first[kv]);
  }
  if (params.kv.format == KvFormat::kInt8) {
    launch_dim<KvFormat::kInt8, 1>(params, groups, split, stream);
  } else if (has_two_tiles(params, heads)) {
    launch_dim<KvFormat::kBf16, 2>(params, groups, split, stream);
  } else {
    launch_dim<KvFormat::kBf16, 1>(params, groups, split, stream);
  }
}

}  // namespace paceline::kernels::cuda
