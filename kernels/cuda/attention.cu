#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include "kernels/core/exact_math.h"
#include "kernels/core/half.h"
#include "kernels/core/kv_address.h"
#include "kernels/cuda/attention_segments.h"
#include "kernels/cuda/block.h"
#include "kernels/cuda/elements.h"
#include "kernels/cuda/intrinsics.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ops.h"

// What both kinds of AttentionMath share, and kFp32; kBf16 is attention_tensor.cu's.
//
// The order of operations is that of kernels/reference/attention.cc, to the bit.
//
// A block of threads takes up to 16 queries (row, head) that read the same cache head, rows side by
// side, so that rows of one sequence share what is read of it. For a segment it computes all
// scores, a half-warp for each position with the dot's 16 lanes; then the running maxima and
// exponentials, a half-warp for each query; then the weighted values, a thread for each element of
// the output.
//
// Where rows are few, each segment has a block of its own, which leaves its state in a workspace; a
// second kernel merges them from left to right. Else a block goes through its queries' segments one
// after the other. The order of the merges, and so the result, is the same.

namespace paceline::kernels::cuda {
namespace {

constexpr int kQueries = 16;
constexpr int kThreads = kQueries * kLanes;
constexpr int kSegmentBlocks = kAttentionSegment / kAttentionBlock;
static_assert(kMostHeadDim <= kThreads);
constexpr std::int64_t kEnoughBlocks = 1024;  // several for each multiprocessor of the largest GPUs
constexpr std::int64_t kMostStateFloats = 16 << 20;
static_assert(kAttentionBlock == kLanes);

/// How a block's threads share the outputs of its queries: the narrower the heads, the more queries
/// at the same time.
struct Shares {
  int element_threads;     // of one query, a thread for each element
  int queries_per_thread;  // one after the other
  int queries() const { return kThreads / element_threads * queries_per_thread; }  // <= kQueries
};
Shares shares_of(int head_dim) {
  if (head_dim <= kThreads / 4) return {kThreads / 4, 4};
  return {head_dim <= kThreads / 2 ? kThreads / 2 : kThreads, 8};
}

struct Shared {
  std::int32_t row[kQueries];
  std::int32_t head[kQueries];
  std::int32_t position[kQueries];
  SegmentState state[kQueries];
  float rescale[kQueries][kSegmentBlocks];
  float scores[kQueries][kAttentionSegment];  // then their exponentials
  float queries[1];                           // [kQueries, head_dim]
};

std::size_t shared_bytes(int head_dim) {
  return sizeof(Shared) +
         sizeof(float) * static_cast<std::size_t>(kQueries) * static_cast<std::size_t>(head_dim);
}

/// The threads of this one's half of its warp.
__device__ unsigned half_warp() { return 0xffffu << (lane_of_warp() & kLanes); }

/// As stored, widened to fp32.
template <KvFormat kFormat>
__device__ float cache_element(const KvPool& pool, std::int64_t at) {
  if constexpr (kFormat == KvFormat::kFp32) {
    return reinterpret_cast<const float*>(pool.data)[at];
  } else if constexpr (kFormat == KvFormat::kBf16) {
    return bf16_to_fp32(reinterpret_cast<const std::uint16_t*>(pool.data)[at]);
  } else {
    return static_cast<float>(reinterpret_cast<const std::int8_t*>(pool.data)[at]);
  }
}

/// Where a key or value stands.
struct CacheRow {
  std::int64_t at;  // its first element
  std::int32_t slot;
};

/// What its elements, as stored, are to be multiplied by, if they are; `next` rows further on in
/// its page.
template <KvFormat kFormat>
__device__ float cache_scale(const KvPool& pool, const CacheRow& row, int next = 0) {
  return kFormat == KvFormat::kInt8 ? (&kv_scale(pool, row.at, row.slot))[next] : 1.0f;
}

/// One block's work; `kPerThread` queries' outputs are held by a thread.
template <KvFormat kFormat, int kPerThread>
class QueryBlock {
 public:
  __device__ QueryBlock(const AttentionParams& params, int kv_head, int count, int element_threads,
                        Shared& shared)
      : params_(params),
        kv_head_(kv_head),
        count_(count),
        element_threads_(element_threads),
        shared_(shared) {}

  /// Needs a barrier after it.
  __device__ void load_queries() {
    const int dim = params_.kv.head_dim;
    for (int e = static_cast<int>(threadIdx.x); e < count_ * dim; e += kThreads) {
      const int q = e / dim;
      shared_.queries[e] = params_.qkv[shared_.row[q] * params_.qkv_stride +
                                       std::int64_t{shared_.head[q]} * dim + e % dim];
    }
  }

  /// Leaves shared.state, and out[] of the thread's element, for the queries that see the segment.
  /// All threads must have passed a barrier since the last call.
  __device__ void segment(std::int32_t begin, float (&out)[kPerThread]) {
    score(begin);
    __syncthreads();
    weigh(begin);
    __syncthreads();
    add_values(begin, out);
  }

  __device__ int visible(int q, std::int32_t begin) const {
    const std::int32_t seen = shared_.position[q] + 1 - begin;
    return seen < kAttentionSegment ? seen : kAttentionSegment;
  }
  __device__ int first_query() const {
    return static_cast<int>(threadIdx.x) / element_threads_ * kPerThread;
  }
  __device__ int element() const { return static_cast<int>(threadIdx.x) % element_threads_; }

 private:
  __device__ CacheRow place(int row, std::int32_t position, KvPart part) const {
    const RowPlace& at = params_.rows_at[row];
    const std::int32_t slot = slot_of_position(at, params_.ancestors, position);
    return {
        kv_offset(params_.kv, params_.page_table, at.sequence, slot, params_.layer, part, kv_head_),
        slot};
  }

  __device__ void score(std::int32_t begin) {
    const int dim = params_.kv.head_dim;
    const int lane = static_cast<int>(threadIdx.x) % kLanes;
    for (int block = 0; block < kSegmentBlocks; ++block) {
      const int j = block * kAttentionBlock + static_cast<int>(threadIdx.x) / kLanes;
      std::int64_t loaded = -1;
      float key[kMostHeadDim / kLanes] = {};
      for (int q = 0; q < count_; ++q) {
        if (j >= visible(q, begin)) continue;
        const CacheRow found = place(shared_.row[q], begin + j, KvPart::kKey);
        if (found.at != loaded) {
          PACELINE_UNROLL
          for (int i = 0; i < kMostHeadDim / kLanes; ++i) {
            const int d = i * kLanes + lane;
            key[i] = d < dim ? cache_element<kFormat>(params_.kv, found.at + d) : 0.0f;
          }
          loaded = found.at;
        }
        const float* query = shared_.queries + q * dim;
        float sum = 0;
        PACELINE_UNROLL
        for (int i = 0; i < kMostHeadDim / kLanes; ++i) {
          const int d = i * kLanes + lane;
          if (i * kLanes < dim) sum = std::fma(d < dim ? query[d] : 0.0f, key[i], sum);
        }
        sum = sum_lanes_of_threads(sum, half_warp());
        if (lane == 0) {
          shared_.scores[q][j] = sum * cache_scale<kFormat>(params_.kv, found) * params_.scale;
        }
      }
    }
  }

  __device__ void weigh(std::int32_t begin) {
    const int q = static_cast<int>(threadIdx.x) / kLanes;
    const int lane = static_cast<int>(threadIdx.x) % kLanes;
    if (q >= count_) return;
    const int seen = visible(q, begin);
    constexpr float kNone = -std::numeric_limits<float>::infinity();
    SegmentState state{kNone, 0};
    for (int block = 0; block * kAttentionBlock < seen; ++block) {
      const int j = block * kAttentionBlock + lane;
      const float score = j < seen ? shared_.scores[q][j] : kNone;
      float max = score > state.max ? score : state.max;  // a NaN is passed over
      for (int half = kLanes / 2; half > 0; half /= 2) {
        const float other = __shfl_xor_sync(half_warp(), max, half, kLanes);
        max = other > max ? other : max;
      }
      const float weight = j < seen ? exact::exp(score - max) : 0.0f;
      const float rescale = exact::exp(state.max - max);
      const float sum =
          __shfl_sync(half_warp(), sum_lanes_of_threads(weight, half_warp()), 0, kLanes);
      state = {max, std::fma(state.sum, rescale, sum)};
      if (j < seen) shared_.scores[q][j] = weight;
      if (lane == 0) shared_.rescale[q][block] = rescale;
    }
    if (lane == 0) shared_.state[q] = state;
  }

  __device__ void add_values(std::int32_t begin, float (&out)[kPerThread]) {
    const int dim = params_.kv.head_dim;
    const int d = element();
    PACELINE_UNROLL
    for (int i = 0; i < kPerThread; ++i) out[i] = 0;
    if (d >= dim) return;
    for (int block = 0; block < kSegmentBlocks; ++block) {
      const int from = block * kAttentionBlock;
      std::int64_t loaded = -1;
      float value[kAttentionBlock] = {};
      float scale[kAttentionBlock] = {};
      PACELINE_UNROLL
      for (int i = 0; i < kPerThread; ++i) {
        const int q = first_query() + i;
        const int seen = (q < count_ ? visible(q, begin) : 0) - from;
        if (seen <= 0) continue;
        const int row = shared_.row[q];
        // Slots of the cache's pages follow each other in whole blocks, ancestors' do not.
        const bool in_order =
            begin + from + std::min(seen, int{kAttentionBlock}) <= params_.rows_at[row].base;
        out[i] *= shared_.rescale[q][block];
        if (!in_order) {
          for (int j = 0; j < seen && j < kAttentionBlock; ++j) {
            const CacheRow found = place(row, begin + from + j, KvPart::kValue);
            out[i] = std::fma(shared_.scores[q][from + j] * cache_scale<kFormat>(params_.kv, found),
                              cache_element<kFormat>(params_.kv, found.at + d), out[i]);
          }
          continue;
        }
        const CacheRow first = place(row, begin + from, KvPart::kValue);
        if (first.at != loaded) {
          PACELINE_UNROLL
          for (int j = 0; j < kAttentionBlock; ++j) {
            value[j] = cache_element<kFormat>(params_.kv, first.at + std::int64_t{j} * dim + d);
            scale[j] = cache_scale<kFormat>(params_.kv, first, j);
          }
          loaded = first.at;
        }
        PACELINE_UNROLL
        for (int j = 0; j < kAttentionBlock; ++j) {
          if (j < seen) {
            out[i] = std::fma(shared_.scores[q][from + j] * scale[j], value[j], out[i]);
          }
        }
      }
    }
  }

  const AttentionParams& params_;
  int kv_head_;
  int count_;
  int element_threads_;
  Shared& shared_;
};

// Block ((chunk of queries, cache head), segment); with no workspace one block for all segments.
template <KvFormat kFormat, int kPerThread>
__global__ void __launch_bounds__(kThreads)
    attention_kernel(const AttentionParams params, const HeadGroups groups, int element_threads,
                     const AttentionSplit split) {
  join_stream();
  auto& shared = *dynamic_shared<Shared>();
  float* const states = split.states;
  const auto [kv_head, chunk, segment] = split.place(blockIdx.x);
  const int first = groups.first[kv_head];
  const int heads = groups.first[kv_head + 1] - first;
  const int most = kThreads / element_threads * kPerThread;
  const std::int64_t begin = chunk * most;
  const auto count = static_cast<int>(
      std::min(std::int64_t{most}, params.rows * heads - begin));  // may be negative
  if (count <= 0) return;
  std::int32_t last = 0;
  for (int q = 0; q < count; ++q) {
    const auto row = static_cast<std::int32_t>((begin + q) / heads);
    last = std::max(last, params.rows_at[row].position);
    if (static_cast<int>(threadIdx.x) != q) continue;
    shared.row[q] = row;
    shared.head[q] = groups.query_head[first + (begin + q) % heads];
    shared.position[q] = params.rows_at[row].position;
  }
  const std::int32_t from = states != nullptr ? segment * kAttentionSegment : 0;
  if (from > last) return;
  __syncthreads();
  QueryBlock<kFormat, kPerThread> block(params, kv_head, count, element_threads, shared);
  block.load_queries();
  __syncthreads();

  const int d = block.element();
  const bool writes = d < params.kv.head_dim;
  float out[kPerThread];
  block.segment(from, out);
  if (states != nullptr) {
    PACELINE_UNROLL
    for (int i = 0; i < kPerThread; ++i) {
      const int q = block.first_query() + i;
      if (!writes || q >= count || block.visible(q, from) <= 0) continue;
      float* state =
          states + state_place(params, shared.row[q], shared.head[q], segment, split.segments);
      state[d] = out[i];
      if (d == 0) state[params.kv.head_dim] = shared.state[q].max;
      if (d == 0) state[params.kv.head_dim + 1] = shared.state[q].sum;
    }
    return;
  }
  SegmentState all[kPerThread];
  PACELINE_UNROLL
  for (int i = 0; i < kPerThread; ++i) {
    const int q = block.first_query() + i;
    if (q < count) all[i] = shared.state[q];
  }
  for (std::int32_t next = kAttentionSegment; next <= last; next += kAttentionSegment) {
    __syncthreads();
    float next_out[kPerThread];
    block.segment(next, next_out);
    PACELINE_UNROLL
    for (int i = 0; i < kPerThread; ++i) {
      const int q = block.first_query() + i;
      if (q < count && block.visible(q, next) > 0) {
        out[i] = merge(merge(all[i], shared.state[q]), out[i], next_out[i]);
      }
    }
  }
  PACELINE_UNROLL
  for (int i = 0; i < kPerThread; ++i) {
    const int q = block.first_query() + i;
    if (!writes || q >= count) continue;
    params.out[(std::int64_t{shared.row[q]} * params.num_heads + shared.head[q]) *
                   params.kv.head_dim +
               d] = out[i] / all[i].sum;
  }
}

// A thread for each element of the output.
__global__ void merge_kernel(const AttentionParams params, const float* states, int segments) {
  join_stream();
  const int dim = params.kv.head_dim;
  for (std::int64_t e = first_element(); e < params.rows * params.num_heads * dim;
       e += element_step()) {
    const auto d = static_cast<int>(e % dim);
    const auto head = static_cast<int>(e / dim % params.num_heads);
    const std::int64_t row = e / dim / params.num_heads;
    const float* state = states + state_place(params, row, head, 0, segments);
    SegmentState all{state[dim], state[dim + 1]};
    float out = state[d];
    for (std::int32_t next = kAttentionSegment; next <= params.rows_at[row].position;
         next += kAttentionSegment) {
      state += dim + 2;
      out = merge(merge(all, {state[dim], state[dim + 1]}), out, state[d]);
    }
    params.out[e] = out / all.sum + least_zero(params.math);
  }
}

/// Blocks of queries that each cache head has.
int chunks_of(const AttentionParams& params) {
  std::int64_t most = 0;
  for (int kv = 0; kv < params.kv.num_heads; ++kv) {
    most = std::max<std::int64_t>(
        most, std::count(params.kv_head, params.kv_head + params.num_heads, kv));
  }
  const int queries = params.math == AttentionMath::kBf16 ? queries_of_tensor_block(params, most)
                                                          : shares_of(params.kv.head_dim).queries();
  return static_cast<int>((params.rows * most + queries - 1) / queries);
}

/// No row has more.
int segments_of(const AttentionParams& params) {
  return static_cast<int>((params.page_table.stride * params.kv.page_size + kAttentionSegment - 1) /
                          kAttentionSegment);
}

template <KvFormat kFormat>
auto* kernel_for(const Shares& shares) {
  return shares.queries_per_thread == 4 ? attention_kernel<kFormat, 4>
                                        : attention_kernel<kFormat, 8>;
}

auto* kernel_for(KvFormat format, const Shares& shares) {
  if (format == KvFormat::kFp32) return kernel_for<KvFormat::kFp32>(shares);
  if (format == KvFormat::kInt8) return kernel_for<KvFormat::kInt8>(shares);
  return kernel_for<KvFormat::kBf16>(shares);
}

}  // namespace

std::int64_t attention_workspace(const AttentionParams& params) {
  const std::int64_t segments = segments_of(params);
  const std::int64_t blocks = std::int64_t{chunks_of(params)} * params.kv.num_heads;
  const std::int64_t floats = params.rows * params.num_heads * segments * (params.kv.head_dim + 2);
  return segments > 1 && blocks < kEnoughBlocks && floats <= kMostStateFloats ? floats : 0;
}

void attention(const AttentionParams& params, float* workspace, cudaStream_t stream) {
  const KvPool& kv = params.kv;
  if (kv.head_dim > kMostHeadDim || std::max(params.num_heads, kv.num_heads) > kMostHeads) {
    fail("attention: " + std::to_string(params.num_heads) + " heads of " +
         std::to_string(kv.head_dim) + " elements, expected at most " + std::to_string(kMostHeads) +
         " of " + std::to_string(kMostHeadDim));
  }
  const AttentionSplit split{chunks_of(params), segments_of(params), workspace};
  if (params.math == AttentionMath::kBf16) {
    attention_on_tensor_cores(params, group_heads(params), split, stream);
  } else {
    const Shares shares = shares_of(kv.head_dim);
    launch("attention", {split.blocks(kv.num_heads), kThreads, shared_bytes(kv.head_dim)}, stream,
           kernel_for(kv.format, shares), params, group_heads(params), shares.element_threads,
           split);
  }
  if (workspace == nullptr) return;
  launch("attention", shape_of_elements(params.rows * params.num_heads * kv.head_dim), stream,
         merge_kernel, params, static_cast<const float*>(workspace), split.segments);
}

}  // namespace paceline::kernels::cuda
