#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/core/host_device.h"
#include "kernels/params.h"

namespace paceline::kernels {

/// Which of the two rows of a cache slot.
enum class KvPart { kKey = 0, kValue = 1 };

/// From one head's slots of a page to the next head's, in elements of the pool's format.
PACELINE_HOST_DEVICE inline std::int64_t kv_head_stride(const KvPool& pool) {
  constexpr int kScaleElements = 4;  // a scale's bytes, where an element has one
  const int of_slot = pool.head_dim + (pool.format == KvFormat::kInt8 ? kScaleElements : 0);
  return std::int64_t{pool.page_size} * of_slot;
}

/// Bytes of one page, all layers.
inline std::size_t page_bytes(const KvPool& pool) {
  return static_cast<std::size_t>(std::int64_t{pool.num_layers} * 2 * pool.num_heads *
                                  kv_head_stride(pool)) *
         element_bytes(pool.format);
}

/// From a key to its value, in elements of the pool's format.
PACELINE_HOST_DEVICE inline std::int64_t kv_value_distance(const KvPool& pool) {
  return pool.num_heads * kv_head_stride(pool);
}

/// Index of the first of the head_dim elements of a key or value, in elements of the pool's format.
PACELINE_HOST_DEVICE inline std::int64_t kv_offset(const KvPool& pool, const PageTable& table,
                                                   std::int32_t sequence, std::int32_t slot,
                                                   int layer, KvPart part, int head) {
  const std::int64_t page = table.pages[sequence * table.stride + slot / pool.page_size];
  const std::int64_t rows = (page * pool.num_layers + layer) * 2 + static_cast<int>(part);
  return (rows * pool.num_heads + head) * kv_head_stride(pool) +
         slot % pool.page_size * static_cast<std::int64_t>(pool.head_dim);
}

/// In a kInt8 pool, the scale of the key or value whose elements start at `offset` (kv_offset) and
/// which stands in `slot`. Those of a page's next slots follow.
PACELINE_HOST_DEVICE inline float& kv_scale(const KvPool& pool, std::int64_t offset,
                                            std::int32_t slot) {
  const std::int64_t index = slot % pool.page_size;
  const std::int64_t scales = offset + (pool.page_size - index) * pool.head_dim;
  return reinterpret_cast<float*>(pool.data + scales)[index];
}

/// The slot in which the key and value of a position stand, as a row sees it.
PACELINE_HOST_DEVICE inline std::int32_t slot_of_position(const RowPlace& row,
                                                          const std::int32_t* ancestors,
                                                          std::int32_t position) {
  return position < row.base ? position : ancestors[row.first_ancestor + (position - row.base)];
}

/// Throws FatalError unless each move may follow the one before it (see CompactKvParams).
void check_moves(const CompactKvParams& params);

}  // namespace paceline::kernels
