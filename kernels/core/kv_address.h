#pragma once

#include <cstdint>

#include "kernels/core/host_device.h"
#include "kernels/params.h"

namespace paceline::kernels {

/// Which of the two rows of a cache slot.
enum class KvPart { kKey = 0, kValue = 1 };

/// Index of the first of the head_dim elements of a key or value, in elements of the pool's format.
PACELINE_HOST_DEVICE inline std::int64_t kv_offset(const KvPool& pool, const PageTable& table,
                                                   std::int32_t sequence, std::int32_t slot,
                                                   int layer, KvPart part, int head) {
  const std::int64_t page = table.pages[sequence * table.stride + slot / pool.page_size];
  const std::int64_t rows = (page * pool.num_layers + layer) * 2 + static_cast<int>(part);
  return ((rows * pool.num_heads + head) * pool.page_size + slot % pool.page_size) *
         static_cast<std::int64_t>(pool.head_dim);
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
