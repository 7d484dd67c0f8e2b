#include <cstring>

#include "kernels/core/kv_address.h"
#include "kernels/reference/ops.h"

namespace paceline::kernels::reference {

void compact_kv(const CompactKvParams& params) {
  check_moves(params);
  const KvPool& kv = params.kv;
  const std::size_t element = element_bytes(kv.format);
  for (std::int64_t i = 0; i < params.count; ++i) {
    const KvMove& move = params.moves[i];
    for (int layer = 0; layer < kv.num_layers; ++layer) {
      for (const KvPart part : {KvPart::kKey, KvPart::kValue}) {
        for (int head = 0; head < kv.num_heads; ++head) {
          const auto offset = [&](std::int32_t slot) {
            return kv_offset(kv, params.page_table, move.sequence, slot, layer, part, head);
          };
          const std::int64_t from = offset(move.from);
          const std::int64_t to = offset(move.to);
          std::memmove(kv.data + static_cast<std::size_t>(to) * element,
                       kv.data + static_cast<std::size_t>(from) * element,
                       static_cast<std::size_t>(kv.head_dim) * element);
          if (kv.format == KvFormat::kInt8) {
            kv_scale(kv, to, move.to) = kv_scale(kv, from, move.from);
          }
        }
      }
    }
  }
}

}  // namespace paceline::kernels::reference
