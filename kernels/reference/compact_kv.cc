#include <cstring>

#include "kernels/core/kv_address.h"
#include "kernels/reference/ops.h"

namespace paceline::kernels::reference {

void compact_kv(const CompactKvParams& params) {
  check_moves(params);
  const KvPool& kv = params.kv;
  const std::size_t element = kv.format == KvFormat::kFp32 ? 4 : 2;
  for (std::int64_t i = 0; i < params.count; ++i) {
    const KvMove& move = params.moves[i];
    for (int layer = 0; layer < kv.num_layers; ++layer) {
      for (const KvPart part : {KvPart::kKey, KvPart::kValue}) {
        for (int head = 0; head < kv.num_heads; ++head) {
          const auto row = [&](std::int32_t slot) {
            return kv.data + static_cast<std::size_t>(kv_offset(
                                 kv, params.page_table, move.sequence, slot, layer, part, head)) *
                                 element;
          };
          std::memmove(row(move.to), row(move.from),
                       static_cast<std::size_t>(kv.head_dim) * element);
        }
      }
    }
  }
}

}  // namespace paceline::kernels::reference
