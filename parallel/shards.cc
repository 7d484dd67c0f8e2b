#include "parallel/shards.h"

#include <algorithm>
#include <bit>

#include "kernels/core/error.h"

namespace paceline::parallel {
namespace {

/// The tree's inner nodes (two shards or more), children before parents, left before right.
void append_inner_nodes(IndexRange node, std::vector<IndexRange>& nodes) {
  if (node.size() < 2) return;
  const auto left =
      static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(node.size() - 1)));
  append_inner_nodes({node.begin, node.begin + left}, nodes);
  append_inner_nodes({node.begin + left, node.end}, nodes);
  nodes.push_back(node);
}

std::vector<IndexRange> inner_nodes(int virtual_shards) {
  std::vector<IndexRange> nodes;
  append_inner_nodes({0, virtual_shards}, nodes);
  return nodes;
}

bool contains(IndexRange outer, IndexRange inner) {
  return outer.begin <= inner.begin && inner.end <= outer.end;
}

/// The largest nodes, leaves included, that lie wholly in `owned`, ascending.
std::vector<IndexRange> maximal_subtrees(const std::vector<IndexRange>& nodes, IndexRange owned) {
  std::vector<IndexRange> subtrees;
  for (std::int64_t begin = owned.begin; begin < owned.end;) {
    IndexRange best{begin, begin + 1};
    for (const IndexRange& node : nodes) {
      if (node.begin == begin && contains(owned, node)) best.end = std::max(best.end, node.end);
    }
    subtrees.push_back(best);
    begin = best.end;
  }
  return subtrees;
}

}  // namespace

std::vector<IndexRange> deal(std::int64_t units, std::int64_t atom, int shards) {
  check(units >= 0 && atom > 0 && shards > 0, "cannot deal {} units in atoms of {} to {} shards",
        units, atom, shards);
  const std::int64_t atoms = units / atom + (units % atom != 0);
  std::vector<IndexRange> ranges;
  std::int64_t begin = 0;
  for (int shard = 0; shard < shards; ++shard) {
    const std::int64_t count = atoms / shards + (shard < atoms % shards);
    const std::int64_t end = std::min(units, begin + count * atom);
    ranges.push_back({begin, end});
    begin = end;
  }
  return ranges;
}

std::vector<IndexRange> vocabulary_shards(std::int64_t vocab_size, int virtual_shards) {
  return deal(vocab_size, 16, virtual_shards);
}

IndexRange rank_shards(int virtual_shards, int tp, int rank) {
  check(1 <= tp && tp <= virtual_shards, "{} ranks cannot share {} virtual shards", tp,
        virtual_shards);
  check(0 <= rank && rank < tp, "rank {} is not one of {}", rank, tp);
  const std::int64_t shards = virtual_shards;
  return {rank * shards / tp, (rank + 1) * shards / tp};
}

IndexRange rank_units(std::span<const IndexRange> dealt, IndexRange shards) {
  check(0 <= shards.begin && shards.begin < shards.end &&
            shards.end <= static_cast<std::int64_t>(dealt.size()),
        "shards [{}, {}) are not among {}", shards.begin, shards.end, dealt.size());
  return {dealt[shards.begin].begin, dealt[shards.end - 1].end};
}

std::vector<IndexRange> local_ranges(std::span<const IndexRange> dealt, IndexRange shards,
                                     std::int64_t unit) {
  const std::int64_t first = rank_units(dealt, shards).begin;
  std::vector<IndexRange> ranges;
  for (std::int64_t shard = shards.begin; shard < shards.end; ++shard) {
    ranges.push_back({(dealt[shard].begin - first) * unit, (dealt[shard].end - first) * unit});
  }
  return ranges;
}

IndexRange kv_heads_for(IndexRange query_heads, std::int64_t num_heads, std::int64_t num_kv_heads) {
  check(num_kv_heads > 0 && num_heads > 0 && num_heads % num_kv_heads == 0,
        "{} query heads do not share {} key/value heads evenly", num_heads, num_kv_heads);
  check(0 <= query_heads.begin && query_heads.begin <= query_heads.end &&
            query_heads.end <= num_heads,
        "query heads [{}, {}) are not among {}", query_heads.begin, query_heads.end, num_heads);
  if (query_heads.size() == 0) return {0, 0};
  const std::int64_t group = num_heads / num_kv_heads;
  return {query_heads.begin / group, (query_heads.end - 1) / group + 1};
}

Reduction local_reduction(std::span<const IndexRange> shard_cols, int first_shard,
                          int virtual_shards) {
  const IndexRange owned{first_shard, first_shard + static_cast<std::int64_t>(shard_cols.size())};
  check(0 <= owned.begin && owned.end <= virtual_shards, "shards [{}, {}) are not among {}",
        owned.begin, owned.end, virtual_shards);
  Reduction reduction;
  for (const IndexRange& cols : shard_cols) reduction.segments.push_back({cols, 0});
  // The inner nodes that end with a shard are nested, so they close in this order: its merges.
  for (const IndexRange& node : inner_nodes(virtual_shards)) {
    if (contains(owned, node)) ++reduction.segments[node.end - 1 - owned.begin].merges;
  }
  return reduction;
}

std::vector<int> subtree_counts(int virtual_shards, int tp) {
  const std::vector<IndexRange> nodes = inner_nodes(virtual_shards);
  std::vector<int> counts;
  for (int rank = 0; rank < tp; ++rank) {
    const IndexRange owned = rank_shards(virtual_shards, tp, rank);
    counts.push_back(static_cast<int>(maximal_subtrees(nodes, owned).size()));
  }
  return counts;
}

std::vector<int> final_merges(int virtual_shards, int tp) {
  const std::vector<IndexRange> nodes = inner_nodes(virtual_shards);
  std::vector<int> merges;
  for (int rank = 0; rank < tp; ++rank) {
    for (const IndexRange& subtree :
         maximal_subtrees(nodes, rank_shards(virtual_shards, tp, rank))) {
      // What ends here and is larger than the subtree is no rank's own: it is added after.
      merges.push_back(static_cast<int>(std::ranges::count_if(nodes, [&](IndexRange node) {
        return node.end == subtree.end && node.begin < subtree.begin;
      })));
    }
  }
  return merges;
}

}  // namespace paceline::parallel
