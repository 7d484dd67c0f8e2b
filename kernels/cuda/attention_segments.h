#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "kernels/core/exact_math.h"
#include "kernels/cuda/launch.h"
#include "kernels/params.h"

// What attention's kernels share: how queries and segments are dealt to blocks, and how segments
// are merged.

namespace paceline::kernels::cuda {

inline constexpr int kMostHeads = 512;
inline constexpr int kMostHeadDim = 256;

/// The query heads of each cache head: query_head[first[kv]] ... query_head[first[kv + 1] - 1].
struct HeadGroups {
  std::uint16_t first[kMostHeads + 1];
  std::uint16_t query_head[kMostHeads];
};

inline HeadGroups group_heads(const AttentionParams& params) {
  HeadGroups groups{};
  int count = 0;
  for (int kv = 0; kv < params.kv.num_heads; ++kv) {
    for (int head = 0; head < params.num_heads; ++head) {
      if (params.kv_head[head] == kv) groups.query_head[count++] = static_cast<std::uint16_t>(head);
    }
    groups.first[kv + 1] = static_cast<std::uint16_t>(count);
  }
  if (count != params.num_heads) fail("attention: a query head has no cache head");
  return groups;
}

/// A block of threads has a chunk of the queries (row, head) of a cache head, rows one after the
/// other, and a segment; where there are no `states` all segments, one after the other.
struct AttentionSplit {
  int chunks;     // of each cache head
  int segments;   // no row has more
  float* states;  // [M, heads, segments, head_dim + 2]: state_place; or null

  struct Place {
    int kv_head;
    std::int64_t chunk;
    int segment;
  };
  std::int64_t blocks(int kv_heads) const {
    return std::int64_t{chunks} * kv_heads * (states != nullptr ? segments : 1);
  }
  __device__ Place place(unsigned block) const {
    const auto parts = static_cast<unsigned>(states != nullptr ? segments : 1);
    const auto of_head = parts * static_cast<unsigned>(chunks);
    return {static_cast<int>(block / of_head), block % of_head / parts,
            static_cast<int>(block % parts)};
  }
};

/// What attention over one segment leaves of a query; its output is elsewhere.
struct SegmentState {
  float max;
  float sum;
};

/// Where a query's state of a segment stands: its head_dim outputs, then max and sum.
__device__ inline std::int64_t state_place(const AttentionParams& params, std::int64_t row,
                                           int head, int segment, int segments) {
  return ((row * params.num_heads + head) * segments + segment) * (params.kv.head_dim + 2);
}

/// What the outputs of the segments before and of the next one are multiplied by where they meet.
struct MergeWeights {
  float before;
  float next;
};

/// Merges the state of the next segment into that of those before it.
__device__ inline MergeWeights merge(SegmentState& all, const SegmentState& next) {
  const float max = next.max > all.max ? next.max : all.max;
  const MergeWeights weights{exact::exp(all.max - max), exact::exp(next.max - max)};
  all = {max, std::fma(all.sum, weights.before, next.sum * weights.next)};
  return weights;
}
__device__ inline float merge(const MergeWeights& weights, float before, float next) {
  return std::fma(before, weights.before, next * weights.next);
}

/// What is added last: -0 changes nothing.
__device__ inline float least_zero(AttentionMath math) {
  return math == AttentionMath::kBf16 ? 0.0f : -0.0f;
}

// ---- attention_tensor.cu: AttentionMath::kBf16

/// Queries of a chunk where each cache head has at most `heads` query heads.
int queries_of_tensor_block(const AttentionParams& params, std::int64_t heads);
/// Leaves states, or the result.
void attention_on_tensor_cores(const AttentionParams& params, const HeadGroups& groups,
                               const AttentionSplit& split, cudaStream_t stream);

}  // namespace paceline::kernels::cuda
