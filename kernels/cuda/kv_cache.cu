#include <cmath>
#include <cstdint>
#include <string>

#include "kernels/core/half.h"
#include "kernels/core/kv_address.h"
#include "kernels/cuda/elements.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ops.h"

// What writes to the key/value cache but for attention's own reads.

namespace paceline::kernels::cuda {
namespace {

__device__ void store(const KvPool& pool, std::int64_t at, float value) {
  if (pool.format == KvFormat::kFp32) {
    reinterpret_cast<float*>(pool.data)[at] = value;
  } else {
    reinterpret_cast<std::uint16_t*>(pool.data)[at] = fp32_to_bf16(value);
  }
}

// A thread for each pair of elements that a rotation mixes, of each head and row.
__global__ void rope_append_kernel(const RopeAppendParams params) {
  const KvPool& kv = params.kv;
  const int half = kv.head_dim / 2;
  const int heads = params.num_heads + 2 * kv.num_heads;
  for (std::int64_t e = first_element(); e < params.rows * heads * half; e += element_step()) {
    const auto i = static_cast<int>(e % half);
    const auto h = static_cast<int>(e / half % heads);
    const std::int64_t row = e / half / heads;
    float* head = params.qkv + (row * heads + h) * kv.head_dim;
    float x1 = head[i];
    float x2 = head[i + half];
    if (params.bias != nullptr) {
      x1 += params.bias[h * kv.head_dim + i];
      x2 += params.bias[h * kv.head_dim + i + half];
    }
    const bool is_value = h >= params.num_heads + kv.num_heads;
    if (!is_value) {
      const float cos = params.cos[row * half + i];
      const float sin = params.sin[row * half + i];
      const float turned = std::fma(x1, cos, -(x2 * sin));
      x2 = std::fma(x2, cos, x1 * sin);
      x1 = turned;
    }
    head[i] = x1;
    head[i + half] = x2;
    if (h < params.num_heads) continue;
    const RowPlace& at = params.rows_at[row];
    const std::int64_t offset =
        kv_offset(kv, params.page_table, at.sequence, at.slot, params.layer,
                  is_value ? KvPart::kValue : KvPart::kKey, (h - params.num_heads) % kv.num_heads);
    store(kv, offset + i, x1);
    store(kv, offset + i + half, x2);
  }
}

constexpr int kMoveThreads = 64;

/// Whether moves[i] may stand where it does (see CompactKvParams).
__device__ bool in_order(const KvMove* moves, std::int64_t i, bool first) {
  return moves[i].to >= 0 && moves[i].to <= moves[i].from &&
         (first || moves[i - 1].to < moves[i].to);
}

// A block for each sequence's first move and each key or value row of a slot; those for other moves
// have nothing to do. A thread makes all of the sequence's moves for its elements, one after the
// other: what one overwrites an earlier one may have read.
template <typename Element>
__global__ void __launch_bounds__(kMoveThreads) compact_kv_kernel(const CompactKvParams params) {
  const KvPool& kv = params.kv;
  const int rows = kv.num_layers * 2 * kv.num_heads;
  const std::int64_t first = blockIdx.x / static_cast<unsigned>(rows);
  const std::int32_t sequence = params.moves[first].sequence;
  if (first > 0 && params.moves[first - 1].sequence == sequence) return;
  const int row = static_cast<int>(blockIdx.x % static_cast<unsigned>(rows));
  const int head = row % kv.num_heads;
  const auto part = static_cast<KvPart>(row / kv.num_heads % 2);
  const int layer = row / kv.num_heads / 2;
  auto* data = reinterpret_cast<Element*>(kv.data);
  for (std::int64_t i = first; i < params.count && params.moves[i].sequence == sequence; ++i) {
    if (!in_order(params.moves, i, i == first)) __trap();
    const std::int64_t from =
        kv_offset(kv, params.page_table, sequence, params.moves[i].from, layer, part, head);
    const std::int64_t to =
        kv_offset(kv, params.page_table, sequence, params.moves[i].to, layer, part, head);
    for (int d = static_cast<int>(threadIdx.x); d < kv.head_dim; d += kMoveThreads) {
      data[to + d] = data[from + d];
    }
  }
}

}  // namespace

void rope_append(const RopeAppendParams& params, cudaStream_t stream) {
  const KvPool& kv = params.kv;
  if (kv.head_dim % 2 != 0) {
    fail("rope_append: head_dim is " + std::to_string(kv.head_dim) + ", expected an even number");
  }
  const std::int64_t heads = params.num_heads + 2 * kv.num_heads;
  launch("rope_append", shape_of_elements(params.rows * heads * (kv.head_dim / 2)), stream,
         rope_append_kernel, params);
}

void compact_kv(const CompactKvParams& params, cudaStream_t stream) {
  const KvPool& kv = params.kv;
  const std::int64_t rows = std::int64_t{kv.num_layers} * 2 * kv.num_heads;
  launch("compact_kv", {params.count * rows, kMoveThreads}, stream,
         kv.format == KvFormat::kFp32 ? compact_kv_kernel<std::uint32_t>
                                      : compact_kv_kernel<std::uint16_t>,
         params);
}

}  // namespace paceline::kernels::cuda
