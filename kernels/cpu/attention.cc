#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/cpu/ops.h"

namespace paceline::kernels::cpu {
namespace {

/// Fewer than these in a group are not worth reading its keys for once more.
constexpr int kFewestQueries = 8;

/// The query heads in the order of their cache heads, those of one cache head together, at most
/// kMaxQueries at a time.
struct HeadGroups {
  explicit HeadGroups(const AttentionParams& params) {
    heads.resize(params.num_heads);
    for (int h = 0; h < params.num_heads; ++h) heads[h] = h;
    std::ranges::stable_sort(heads, {}, [&](std::int32_t h) { return params.kv_head[h]; });
    for (std::size_t begin = 0; begin < heads.size();) {
      std::size_t end = begin;
      while (end < heads.size() && end - begin < AttentionGroup::kMaxQueries &&
             params.kv_head[heads[end]] == params.kv_head[heads[begin]]) {
        ++end;
      }
      spans.emplace_back(heads.data() + begin, end - begin);
      largest = std::max(largest, static_cast<int>(end - begin));
      begin = end;
    }
  }

  std::vector<std::int32_t> heads;
  std::vector<std::span<const std::int32_t>> spans;
  int largest = 1;
};

bool has_ancestors(const RowPlace& row) { return row.base <= row.position; }

/// Whether consecutive rows can share the keys that they read: see AttentionGroup.
bool shares_keys(const RowPlace& before, const RowPlace& at) {
  if (before.sequence != at.sequence) return false;
  return has_ancestors(at) ? before.base == at.base
                           : !has_ancestors(before) && before.position < at.position;
}

std::vector<IndexRange> row_groups(const AttentionParams& params, std::int64_t most) {
  std::vector<IndexRange> groups;
  for (std::int64_t row = 0; row < params.rows; ++row) {
    if (!groups.empty() && groups.back().size() < most &&
        shares_keys(params.rows_at[row - 1], params.rows_at[row])) {
      groups.back().end = row + 1;
    } else {
      groups.push_back({row, row + 1});
    }
  }
  return groups;
}

/// Groups of at most so many rows.
std::vector<AttentionGroup> attention_groups(const AttentionParams& params, const HeadGroups& heads,
                                             std::int64_t most_rows) {
  std::vector<AttentionGroup> groups;
  for (const IndexRange rows : row_groups(params, most_rows)) {
    AttentionGroup group;
    group.rows = rows;
    group.shared_end = std::numeric_limits<std::int32_t>::max();
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      const RowPlace& at = params.rows_at[row];
      if (at.position > group.last_position || row == rows.begin) {
        group.last_position = at.position;
        group.longest_row = static_cast<std::int32_t>(row - rows.begin);
      }
      if (has_ancestors(at)) group.shared_end = std::min(group.shared_end, at.base);
    }
    for (const std::span<const std::int32_t> span : heads.spans) {
      group.heads = span;
      group.kv_head = params.kv_head[span[0]];
      groups.push_back(group);
    }
  }
  return groups;
}

/// Large groups read keys once for many queries, but few of them cannot be dealt evenly: three of
/// eight rows keep one of two threads waiting for a third of the time, six of four do not.
std::vector<AttentionGroup> dealt_groups(const AttentionParams& params, const HeadGroups& heads,
                                         int threads) {
  std::int64_t most_rows = AttentionGroup::kMaxQueries / heads.largest;
  std::vector<AttentionGroup> groups = attention_groups(params, heads, most_rows);
  const auto uneven = [&] {
    const auto count = static_cast<int>(groups.size());
    return count < 4 * threads && count % threads != 0;
  };
  most_rows = std::min(most_rows, params.rows);
  while (uneven() && most_rows * heads.largest > kFewestQueries) {
    most_rows = (most_rows + 1) / 2;
    groups = attention_groups(params, heads, most_rows);
  }
  return groups;
}

std::int32_t segments(const AttentionGroup& group) {
  return group.last_position / kAttentionSegment + 1;
}

/// Every group's segments one after the other; a group is one thread's.
void attend_by_group(const AttentionParams& params, std::span<const AttentionGroup> groups,
                     const RowOps& ops, ThreadPool& pool) {
  pool.run(static_cast<int>(groups.size()), [&](int task) {
    const AttentionGroup& group = groups[task];
    alignas(64) float memory[2][AttentionState::kMostFloats];
    const auto [total, segment] =
        std::to_array({AttentionState::in(memory[0], group.queries(), params.kv.head_dim),
                       AttentionState::in(memory[1], group.queries(), params.kv.head_dim)});
    ops.attention_segment(params, group, 0, total);
    for (std::int32_t s = 1; s < segments(group); ++s) {
      ops.attention_segment(params, group, s * kAttentionSegment, segment);
      ops.attention_merge(params, group, s * kAttentionSegment, total, segment);
    }
    ops.attention_store(params, group, total);
  });
}

/// For a few queries with many keys: segments are shared out, then merged in order. So many
/// segments at a time that memory stays bounded.
void attend_by_segment(const AttentionParams& params, std::span<const AttentionGroup> groups,
                       const RowOps& ops, ThreadPool& pool) {
  constexpr std::int32_t kAtATime = 32;
  const int head_dim = params.kv.head_dim;
  int queries = 0;
  std::int32_t longest = 0;
  for (const AttentionGroup& group : groups) {
    queries = std::max(queries, group.queries());
    longest = std::max(longest, segments(group));
  }
  // Per group the total, then the segments in progress.
  const std::size_t floats = AttentionState::floats(queries, head_dim);
  const std::size_t slots = 1 + std::min(kAtATime, longest);
  const auto memory = std::make_unique_for_overwrite<float[]>(groups.size() * slots * floats);
  const auto state = [&](std::size_t group, std::int32_t slot) {
    return AttentionState::in(memory.get() + (group * slots + slot) * floats,
                              groups[group].queries(), head_dim);
  };
  struct Task {
    std::size_t group;
    std::int32_t segment;
  };
  std::vector<Task> tasks;
  for (std::int32_t first = 0;; first += kAtATime) {
    tasks.clear();
    for (std::size_t g = 0; g < groups.size(); ++g) {
      const std::int32_t end = std::min(first + kAtATime, segments(groups[g]));
      for (std::int32_t s = first; s < end; ++s) tasks.push_back({g, s});
    }
    if (tasks.empty()) break;
    pool.run(static_cast<int>(tasks.size()), [&](int task) {
      const auto [g, s] = tasks[task];
      ops.attention_segment(params, groups[g], s * kAttentionSegment,
                            state(g, s == 0 ? 0 : 1 + s - first));
    });
    for (const auto [g, s] : tasks) {
      if (s == 0) continue;
      ops.attention_merge(params, groups[g], s * kAttentionSegment, state(g, 0),
                          state(g, 1 + s - first));
    }
  }
  for (std::size_t g = 0; g < groups.size(); ++g)
    ops.attention_store(params, groups[g], state(g, 0));
}

}  // namespace

void attention(const AttentionParams& params, const RowOps& ops, ThreadPool& pool) {
  check(params.kv.head_dim > 0 && params.kv.head_dim <= kMaxHeadDim,
        "attention: head_dim {}, from 1 to {} are supported", params.kv.head_dim, kMaxHeadDim);
  check(params.math == AttentionMath::kFp32, "attention in bf16 on the CPU, expected fp32");
  check(params.kv.page_size % kAttentionBlock == 0, "attention: page size {}, not a multiple of {}",
        params.kv.page_size, kAttentionBlock);
  if (params.rows == 0 || params.num_heads == 0) return;
  const HeadGroups heads(params);
  const std::vector<AttentionGroup> groups = dealt_groups(params, heads, pool.threads());
  const auto by_position = [](const AttentionGroup& group) { return group.last_position; };
  const std::int32_t longest = std::ranges::max(groups, {}, by_position).last_position;
  const bool few = groups.size() < 4 * static_cast<std::size_t>(pool.threads());
  if (few && pool.threads() > 1 && longest >= kAttentionSegment) {
    attend_by_segment(params, groups, ops, pool);
  } else {
    attend_by_group(params, groups, ops, pool);
  }
}

}  // namespace paceline::kernels::cpu
