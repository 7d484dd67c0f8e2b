#include <cstring>

#include "kernels/core/accept.h"
#include "kernels/core/kv_address.h"
#include "kernels/reference/ops.h"

namespace paceline::kernels::reference {
namespace {

void move(const CompactKvParams& params, std::int32_t sequence, std::int32_t from_slot,
          std::int32_t to_slot) {
  const KvPool& kv = params.kv;
  const std::size_t element = element_bytes(kv.format);
  for (int layer = 0; layer < kv.num_layers; ++layer) {
    for (const KvPart part : {KvPart::kKey, KvPart::kValue}) {
      for (int head = 0; head < kv.num_heads; ++head) {
        const auto offset = [&](std::int32_t slot) {
          return kv_offset(kv, params.page_table, sequence, slot, layer, part, head);
        };
        const std::int64_t from = offset(from_slot);
        const std::int64_t to = offset(to_slot);
        std::memmove(kv.data + static_cast<std::size_t>(to) * element,
                     kv.data + static_cast<std::size_t>(from) * element,
                     static_cast<std::size_t>(kv.head_dim) * element);
        if (kv.format == KvFormat::kInt8) kv_scale(kv, to, to_slot) = kv_scale(kv, from, from_slot);
      }
    }
  }
}

}  // namespace

void compact_kv(const CompactKvParams& params) {
  check_paths(params);
  for (std::int64_t p = 0; p < params.count; ++p) {
    const AcceptedPath& path = params.paths[p];
    for (std::int32_t i = 0; i < path.count; ++i) {
      move(params, path.sequence, path.first_slot + path.nodes[i], path.first_slot + i);
    }
  }
}

}  // namespace paceline::kernels::reference
