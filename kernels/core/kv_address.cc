#include "kernels/core/kv_address.h"

#include "kernels/core/error.h"

namespace paceline::kernels {

void check_moves(const CompactKvParams& params) {
  for (std::int64_t i = 0; i < params.count; ++i) {
    const KvMove& move = params.moves[i];
    check(move.to >= 0 && move.to <= move.from, "compact_kv: slot {} moved up to {}", move.from,
          move.to);
    if (i == 0 || params.moves[i - 1].sequence != move.sequence) continue;
    check(params.moves[i - 1].to < move.to, "compact_kv: slot {} is written after slot {}", move.to,
          params.moves[i - 1].to);
  }
}

}  // namespace paceline::kernels
