#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <string>

#include "kernels/core/accept.h"
#include "kernels/core/half.h"
#include "kernels/core/kv_address.h"
#include "kernels/core/quantize.h"
#include "kernels/cuda/block.h"
#include "kernels/cuda/elements.h"
#include "kernels/cuda/intrinsics.h"
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

// A thread for each pair of elements that a rotation mixes, of each head and row. What kInt8 stores
// depends on a whole key or value, and is left to the next kernel.
__global__ void rope_append_kernel(const RopeAppendParams params) {
  join_stream();
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
    if (h < params.num_heads || kv.format == KvFormat::kInt8) continue;
    const RowPlace& at = params.rows_at[row];
    const std::int64_t offset =
        kv_offset(kv, params.page_table, at.sequence, at.slot, params.layer,
                  is_value ? KvPart::kValue : KvPart::kKey, (h - params.num_heads) % kv.num_heads);
    store(kv, offset + i, x1);
    store(kv, offset + i + half, x2);
  }
}

// A warp for each key and value that rope_append_kernel has left in qkv.
__global__ void __launch_bounds__(kWarpThreads) store_int8_kernel(const RopeAppendParams params) {
  join_stream();
  const KvPool& kv = params.kv;
  const std::int64_t row = blockIdx.x / static_cast<unsigned>(2 * kv.num_heads);
  const int h = static_cast<int>(blockIdx.x % static_cast<unsigned>(2 * kv.num_heads));
  const std::int64_t heads = params.num_heads + 2 * kv.num_heads;
  const float* head = params.qkv + (row * heads + params.num_heads + h) * kv.head_dim;
  std::uint32_t largest = 0;
  for (int d = lane_of_warp(); d < kv.head_dim; d += kWarpThreads) {
    largest = std::max(largest, std::bit_cast<std::uint32_t>(head[d]) & 0x7fffffffu);
  }
  const GroupScale scale = group_scale(
      reduce_block(largest, [](std::uint32_t a, std::uint32_t b) { return std::max(a, b); }));
  const RowPlace& at = params.rows_at[row];
  const std::int64_t offset =
      kv_offset(kv, params.page_table, at.sequence, at.slot, params.layer,
                h < kv.num_heads ? KvPart::kKey : KvPart::kValue, h % kv.num_heads);
  auto* q = reinterpret_cast<std::int8_t*>(kv.data) + offset;
  for (int d = lane_of_warp(); d < kv.head_dim; d += kWarpThreads) {
    q[d] = quantize_element(head[d], scale);
  }
  if (threadIdx.x == 0) kv_scale(kv, offset, at.slot) = scale.scale;
}

constexpr int kMoveThreads = 64;

// A block for each path and each key or value row of a slot. A thread makes all of the path's moves
// for its elements, the first one also for an int8 row's scale, one after the other: what one
// overwrites an earlier one may have read.
template <typename Element>
__global__ void __launch_bounds__(kMoveThreads) compact_kv_kernel(const CompactKvParams params) {
  join_stream();
  const KvPool& kv = params.kv;
  const int rows = kv.num_layers * 2 * kv.num_heads;
  const AcceptedPath& path = params.paths[blockIdx.x / static_cast<unsigned>(rows)];
  const int row = static_cast<int>(blockIdx.x % static_cast<unsigned>(rows));
  const int head = row % kv.num_heads;
  const auto part = static_cast<KvPart>(row / kv.num_heads % 2);
  const int layer = row / kv.num_heads / 2;
  auto* data = reinterpret_cast<Element*>(kv.data);
  if (path.count < 0 || path.count > kMaxPathLength) __trap();
  for (std::int32_t i = 0; i < path.count; ++i) {
    if (!in_order(path, i)) __trap();
    if (path.nodes[i] == i) continue;
    const std::int32_t from_slot = path.first_slot + path.nodes[i];
    const std::int32_t to_slot = path.first_slot + i;
    const std::int64_t from =
        kv_offset(kv, params.page_table, path.sequence, from_slot, layer, part, head);
    const std::int64_t to =
        kv_offset(kv, params.page_table, path.sequence, to_slot, layer, part, head);
    for (int d = static_cast<int>(threadIdx.x); d < kv.head_dim; d += kMoveThreads) {
      data[to + d] = data[from + d];
    }
    if (kv.format == KvFormat::kInt8 && threadIdx.x == 0) {
      kv_scale(kv, to, to_slot) = kv_scale(kv, from, from_slot);
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
  if (kv.format == KvFormat::kInt8) {
    launch("rope_append", {params.rows * 2 * kv.num_heads, kWarpThreads}, stream, store_int8_kernel,
           params);
  }
}

void compact_kv(const CompactKvParams& params, cudaStream_t stream) {
  const KvPool& kv = params.kv;
  const std::int64_t rows = std::int64_t{kv.num_layers} * 2 * kv.num_heads;
  auto* kernel = compact_kv_kernel<std::uint32_t>;
  if (kv.format == KvFormat::kBf16) kernel = compact_kv_kernel<std::uint16_t>;
  if (kv.format == KvFormat::kInt8) kernel = compact_kv_kernel<std::uint8_t>;
  launch("compact_kv", {params.count * rows, kMoveThreads}, stream, kernel, params);
}

}  // namespace paceline::kernels::cuda
