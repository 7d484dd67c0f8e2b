#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <limits>

#include "kernels/core/attention_order.h"
#include "kernels/core/kv_address.h"
#include "kernels/cuda/attention_segments.h"
#include "kernels/cuda/block.h"
#include "kernels/cuda/intrinsics.h"

// What attention_tensor.cu's phases share: the memory that they hand over, and which queries see
// the same keys.

namespace paceline::kernels::cuda {

inline constexpr int kTensorKeys = kTensorAttentionBlock;
inline constexpr int kTensorBlocks = kAttentionSegment / kTensorKeys;  // of a segment
inline constexpr int kTensorThreads = kTensorBlocks * kWarpThreads;
inline constexpr int kTileQueries = 16;
static_assert(kTensorKeys == kWarpThreads, "a lane finds a key's place");
static_assert(kMostTensorHeadDim <= kMostHeadDim);

/// Queries of a tile that see the same keys at the positions of a block.
struct KeyRun {
  std::uint32_t queries;      // a bit for each
  std::uint8_t first;         // the lowest of them
  std::uint8_t keys;          // of the block: those that the longest row sees
  std::uint8_t keys_of_all;   // and those that all rows see
  std::uint8_t in_own_slots;  // each at its position's
};

/// A block of threads' shared memory.
template <int kTiles>
struct TensorMemory {
  static constexpr int kQueries = kTiles * kTileQueries;
  /// Of each 8 keys those of a lane's two rows; then, where the first of 16 keys' scores stood,
  /// their weights.
  Words2 scores[kTensorBlocks][kTiles][kTensorKeys / 8][2][kWarpThreads];
  RowPlace place[kQueries];
  std::int32_t row[kQueries];
  std::int32_t head[kQueries];
  SegmentState state[kQueries];            // of all segments so far
  MergeWeights merging[kQueries];          // of those before the last with it
  float max[kTensorBlocks][kQueries];      // of a block's scores
  float rescale[kTensorBlocks][kQueries];  // what is done to the blocks before
  float sum[kTensorBlocks][kQueries];      // of a block's weights
  KeyRun runs[kTensorBlocks][kQueries];
  int run_count[kTensorBlocks];
  int count;                      // of the queries
  alignas(16) Words4 queries[1];  // [kTiles, head_dim / 16, 32]: operands of a product
};

template <int kTiles>
constexpr std::size_t shared_bytes(int head_dim) {
  return sizeof(TensorMemory<kTiles>) +
         sizeof(Words4) *
             static_cast<std::size_t>(kTiles * head_dim / kTensorInputs * kWarpThreads);
}

/// Where a walk over a segment's runs is.
struct KeyRunPlace {
  int block = 0;
  int run = 0;
};

/// A tile's fragments: a lane has sums of the rows fragment_row() and fragment_row() + 8, and the
/// columns 2 * fragment_pair() and the next (kernels/cuda/intrinsics.h).
__device__ inline int fragment_row() { return lane_of_warp() / 4; }
__device__ inline int fragment_pair() { return lane_of_warp() % 4; }
/// The query of a lane's sums 2 * half and 2 * half + 1 of a tile.
__device__ inline int query_of(int tile, int half) {
  return tile * kTileQueries + fragment_row() + 8 * half;
}
__device__ inline bool is_among(std::uint32_t queries, int q) { return (queries >> q & 1u) != 0; }
__device__ inline int lowest(std::uint32_t bits) { return __popc((bits & (0u - bits)) - 1); }

/// A block's queries and the keys that they see. kDim is head_dim, or 0: any.
template <KvFormat kFormat, int kDim, int kTiles>
struct TensorRuns {
  static constexpr int kQueries = kTiles * kTileQueries;
  static constexpr int kMostDim = kDim > 0 ? kDim : kMostHeadDim;
  static constexpr bool kInt8 = kFormat == KvFormat::kInt8;

  const AttentionParams& params;
  int kv_head;
  TensorMemory<kTiles>& shared;

  __device__ int dim() const { return kDim > 0 ? kDim : params.kv.head_dim; }

  /// Whether a query sees any of the segment.
  __device__ bool sees(int q, std::int32_t begin) const {
    return q < shared.count && shared.place[q].position >= begin;
  }
  /// The keys of a block that a query sees.
  __device__ int seen(int q, std::int32_t from) const {
    const std::int32_t keys = shared.place[q].position + 1 - from;
    return keys < 0 ? 0 : keys < kTensorKeys ? keys : kTensorKeys;
  }

  /// Those of a segment: each warp a block's, each lane a query. Sets all queries' largest scores
  /// to none.
  __device__ void find_runs(std::int32_t begin) const {
    const int block = warp_of_block();
    const int q = lane_of_warp();
    const std::int32_t from = begin + block * kTensorKeys;
    const int keys = q < shared.count ? seen(q, from) : 0;
    std::int32_t keys_of = 0;
    bool in_own_slots = false;
    if (keys > 0) {
      const RowPlace& at = shared.place[q];
      in_own_slots = from + keys <= at.base;
      keys_of = in_own_slots ? -1 - at.sequence : shared.row[q];
    }
    if (q < kQueries) shared.max[block][q] = -std::numeric_limits<float>::infinity();
    int found = 0;
    for (unsigned left = __ballot_sync(kWholeWarp, keys > 0); left != 0; ++found) {
      const int first = lowest(left);
      const std::int32_t of_first = __shfl_sync(kWholeWarp, keys_of, first);
      const bool is_in = keys > 0 && keys_of == of_first;
      const unsigned queries = __ballot_sync(kWholeWarp, is_in);
      const int most = reduce_warp(is_in ? keys : 0, [](int a, int b) { return a > b ? a : b; });
      const int least =
          reduce_warp(is_in ? keys : kTensorKeys, [](int a, int b) { return a < b ? a : b; });
      if (q == first) {
        shared.runs[block][found] = {queries, static_cast<std::uint8_t>(first),
                                     static_cast<std::uint8_t>(most),
                                     static_cast<std::uint8_t>(least), in_own_slots};
      }
      left &= ~queries;
    }
    if (q == 0) shared.run_count[block] = found;
  }

  /// n runs further on; whether there is one.
  __device__ bool advance(KeyRunPlace& at, int n) const {
    at.run += n;
    while (at.block < kTensorBlocks && at.run >= shared.run_count[at.block]) {
      at.run -= shared.run_count[at.block++];
    }
    return at.block < kTensorBlocks;
  }

  /// The warps take turns.
  template <typename Work>
  __device__ void for_own_runs(const Work& work) const {
    KeyRunPlace at;
    for (bool is_one = advance(at, warp_of_block()); is_one; is_one = advance(at, kTensorBlocks)) {
      work(at);
    }
  }

  /// Where the key of this lane's number stands, one of the run's block; its value is
  /// kv_value_distance behind.
  struct KeyPlace {
    std::int64_t at = 0;
    std::int32_t slot = 0;
  };
  __device__ KeyPlace find_key(const KeyRun& run, std::int32_t from) const {
    if (lane_of_warp() >= run.keys) return {};
    const RowPlace& row = shared.place[run.first];
    const std::int32_t position = from + lane_of_warp();
    const std::int32_t slot =
        run.in_own_slots != 0 ? position : slot_of_position(row, params.ancestors, position);
    return {kv_offset(params.kv, params.page_table, row.sequence, slot, params.layer, KvPart::kKey,
                      kv_head),
            slot};
  }

  /// Where any key of the block stands, from what each lane has found. A page holds 16 keys or a
  /// multiple of that one behind the other.
  __device__ std::int64_t key_at(const KeyRun& run, std::int64_t found, int key) const {
    if (run.in_own_slots != 0) {
      return __shfl_sync(kWholeWarp, found, key & kTensorInputs) +
             std::int64_t{key % kTensorInputs} * dim();
    }
    return __shfl_sync(kWholeWarp, found, key);
  }

  /// What stands in the cache from there on.
  template <typename Words>
  __device__ Words load(std::int64_t at) const {
    return *reinterpret_cast<const Words*>(params.kv.data +
                                           at * std::int64_t{element_bytes(kFormat)});
  }
};

}  // namespace paceline::kernels::cuda
