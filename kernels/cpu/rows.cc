#include <algorithm>
#include <cstring>

#include "kernels/core/error.h"
#include "kernels/core/kv_address.h"
#include "kernels/core/reduction.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/split.h"

// The ops whose rows are simply shared out.

namespace paceline::kernels::cpu {

void sum_partials(const SumPartialsParams& params, const RowOps& ops, ThreadPool& pool) {
  if (params.size == 0) return;
  check_merges(params.merges);
  split(pool, params.size, kCheapElements, 16,
        [&](IndexRange range) { ops.sum_partials(params, range); });
}

void rms_norm(const RmsNormParams& params, const RowOps& ops, ThreadPool& pool) {
  split(pool, params.rows, rows_of(kCheapElements, params.width), 1,
        [&](IndexRange rows) { ops.rms_norm(params, rows); });
}

void rope_table(const RopeTableParams& params, const RowOps& ops, ThreadPool& pool) {
  split(pool, params.rows, rows_of(kDearElements / 8, params.head_dim / 2), 1,
        [&](IndexRange rows) { ops.rope_table(params, rows); });
}

void rope_append(const RopeAppendParams& params, const RowOps& ops, ThreadPool& pool) {
  const std::int64_t heads = params.num_heads + 2 * params.kv.num_heads;
  split(pool, params.rows, rows_of(kCheapElements, heads * params.kv.head_dim), 1,
        [&](IndexRange rows) { ops.rope_append(params, rows); });
}

void gather_rows(const GatherRowsParams& params, const RowOps&, ThreadPool& pool) {
  split(pool, params.rows, rows_of(kCheapElements * 4, params.width), 1, [&](IndexRange rows) {
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      std::copy_n(params.in + params.index[row] * params.width, params.width,
                  params.out + row * params.width);
    }
  });
}

void join_rows(const JoinRowsParams& params, const RowOps&, ThreadPool& pool) {
  const std::int64_t width = params.left_width + params.right_width;
  split(pool, params.rows, rows_of(kCheapElements * 4, width), 1, [&](IndexRange rows) {
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      float* out = params.out + row * width;
      std::copy_n(params.left + params.left_index[row] * params.left_width, params.left_width, out);
      std::copy_n(params.right + row * params.right_width, params.right_width,
                  out + params.left_width);
    }
  });
}

void place_columns(const PlaceColumnsParams& params, const RowOps&, ThreadPool& pool) {
  split(pool, params.rows, rows_of(kCheapElements * 4, params.width), 1, [&](IndexRange rows) {
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      std::copy_n(params.in + row * params.width, params.width,
                  params.out + row * params.out_width + params.first);
    }
  });
}

void activate(const ActivateParams& params, const RowOps& ops, ThreadPool& pool) {
  split(pool, params.rows, rows_of(kDearElements, params.width), 1,
        [&](IndexRange rows) { ops.activate(params, rows); });
}

void top_log_probs(const TopLogProbsParams& params, const RowOps& ops, ThreadPool& pool) {
  check(params.k > 0 && params.k <= kMaxTopLogProbs, "top_log_probs: k is {}, expected 1 to {}",
        params.k, kMaxTopLogProbs);
  split(pool, params.rows, rows_of(kDearElements, params.vocab), 1,
        [&](IndexRange rows) { ops.top_log_probs(params, rows); });
}

void compact_kv(const CompactKvParams& params, const RowOps&, ThreadPool& pool) {
  check_moves(params);
  const KvPool& kv = params.kv;
  const std::size_t element = element_bytes(kv.format);
  const std::size_t bytes = static_cast<std::size_t>(kv.head_dim) * element;
  // A layer's keys, or its values, are moved by one thread, in order.
  const std::int64_t per_part = params.count * kv.num_heads * kv.head_dim;
  split(pool, 2 * kv.num_layers, rows_of(kCheapElements * 4, per_part), 1, [&](IndexRange parts) {
    for (std::int64_t part = parts.begin; part < parts.end; ++part) {
      const auto offset = [&](const KvMove& move, std::int32_t slot, int head) {
        return kv_offset(kv, params.page_table, move.sequence, slot, static_cast<int>(part / 2),
                         static_cast<KvPart>(part % 2), head);
      };
      for (std::int64_t i = 0; i < params.count; ++i) {
        const KvMove& move = params.moves[i];
        if (move.from == move.to) continue;
        for (int head = 0; head < kv.num_heads; ++head) {
          const std::int64_t from = offset(move, move.from, head);
          const std::int64_t to = offset(move, move.to, head);
          std::memcpy(kv.data + static_cast<std::size_t>(to) * element,
                      kv.data + static_cast<std::size_t>(from) * element, bytes);
          if (kv.format == KvFormat::kInt8) {
            kv_scale(kv, to, move.to) = kv_scale(kv, from, move.from);
          }
        }
      }
    }
  });
}

void token_log_probs(const TokenLogProbsParams& params, const RowOps& ops, ThreadPool& pool) {
  for (std::int64_t row = 0; row < params.rows; ++row) {
    const std::int32_t target = params.targets[row];
    check(target >= 0 && target < params.vocab,
          "token_log_probs: target {} of row {}, vocabulary {}", target, row, params.vocab);
  }
  split(pool, params.rows, rows_of(kDearElements, params.vocab), 1,
        [&](IndexRange rows) { ops.token_log_probs(params, rows); });
}

}  // namespace paceline::kernels::cpu
