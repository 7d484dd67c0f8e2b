#include <algorithm>

#include "kernels/core/error.h"
#include "kernels/core/reduction.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/split.h"

// The ops whose rows are simply shared out. A hand-over to another thread costs about as much as a
// few thousand elements.

namespace paceline::kernels::cpu {
namespace {

constexpr std::int64_t kCheapElements = 16384;  // a few instructions each
constexpr std::int64_t kDearElements = 4096;    // an exp or a sine each

void check_merges(const SumPartialsParams& params) {
  int depth = 0;
  for (const int merges : params.merges) {
    ++depth;
    check(merges < depth && depth <= kMaxReductionDepth,
          "sum_partials: {} merges of {} sums, of which at most {} can wait", merges, depth,
          kMaxReductionDepth);
    depth -= merges;
  }
  check(depth == 1, "sum_partials: the merges leave {} sums, not one", depth);
}

}  // namespace

void sum_partials(const SumPartialsParams& params, const RowOps& ops, ThreadPool& pool) {
  if (params.size == 0) return;
  check_merges(params);
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

void silu_mul(const SiluMulParams& params, const RowOps& ops, ThreadPool& pool) {
  split(pool, params.rows, rows_of(kDearElements, params.width), 1,
        [&](IndexRange rows) { ops.silu_mul(params, rows); });
}

void gather_rows(const GatherRowsParams& params, const RowOps&, ThreadPool& pool) {
  split(pool, params.rows, rows_of(kCheapElements * 4, params.width), 1, [&](IndexRange rows) {
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      std::copy_n(params.in + params.index[row] * params.width, params.width,
                  params.out + row * params.width);
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
