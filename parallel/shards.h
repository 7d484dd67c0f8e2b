#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/params.h"

// The contract's first rule as plain values: how a model is cut into V virtual shards whatever the
// number of ranks, which shards a rank owns, and in which order the shards' partial sums are added.
//
// The order is one binary tree over shards [0, V): node [lo, hi) splits at lo + the largest power
// of two below hi - lo.
//
//   V = 8:  ((0 1)(2 3)) ((4 5)(6 7))          V = 6:  ((0 1)(2 3)) (4 5)
//   V = 7:  ((0 1)(2 3)) ((4 5) 6)             V = 3:  (0 1) 2
//
// A rank adds up each maximal subtree whose leaves are all its own, in `linear`; the list of those
// sums, ranks ascending, is what ranks exchange; `sum_partials` adds the rest. For V = 8 on 3
// ranks:
//
//   rank  shards   its subtrees     local merges   what is left to do: merges
//   0     0 1      (0 1)            0 1            0
//   1     2 3 4    (2 3) 4          0 1 0          1 0      after (2 3): ((0 1)(2 3))
//   2     5 6 7    5 (6 7)          0 0 1          1 2      after 5: (4 5); after (6 7): two more

namespace paceline::parallel {

using kernels::IndexRange;
using kernels::Reduction;

/// Cuts `units` (heads, columns, vocabulary rows) into one range per shard: ceil(units / atom)
/// atoms are dealt as evenly as they go, the first shards one more; ranges are contiguous, in
/// order, clipped to `units`, and may be empty.
/// Example: deal(9, 1, 8) -> [0,2) [2,3) ... [8,9); deal(40, 16, 4) -> [0,16) [16,32) [32,40)
/// [40,40).
std::vector<IndexRange> deal(std::int64_t units, std::int64_t atom, int shards);

/// How the vocabulary is dealt: in atoms of 16 rows.
std::vector<IndexRange> vocabulary_shards(std::int64_t vocab_size, int virtual_shards);

/// The shards of a rank: [rank * V / tp, (rank + 1) * V / tp). Needs 1 <= tp <= V, so never empty.
IndexRange rank_shards(int virtual_shards, int tp, int rank);

/// What the shards of a rank hold together: `dealt` is deal()'s answer.
IndexRange rank_units(std::span<const IndexRange> dealt, IndexRange shards);

/// The shards' ranges counted from the rank's first unit: the column ranges of its local matrix.
/// `unit` scales heads to columns (head_dim).
std::vector<IndexRange> local_ranges(std::span<const IndexRange> dealt, IndexRange shards,
                                     std::int64_t unit = 1);

/// The key/value heads that a range of query heads reads; empty if the range is.
/// Example: 9 query heads, 3 key/value heads: query heads [2, 4) need key/value heads [0, 2).
IndexRange kv_heads_for(IndexRange query_heads, std::int64_t num_heads, std::int64_t num_kv_heads);

/// The reduction of a row-parallel matrix that holds shards [first_shard, first_shard +
/// shard_cols.size()): one output for each maximal subtree among them, shards ascending.
/// `shard_cols` are local_ranges(): relative to the rank's first column.
Reduction local_reduction(std::span<const IndexRange> shard_cols, int first_shard,
                          int virtual_shards);

/// The number of outputs of that reduction for every rank: the sizes of the exchange.
std::vector<int> subtree_counts(int virtual_shards, int tp);

/// How the list of all ranks' subtrees is added up to the root: SumPartialsParams::merges, one
/// entry for each of the sum of subtree_counts().
std::vector<int> final_merges(int virtual_shards, int tp);

}  // namespace paceline::parallel
