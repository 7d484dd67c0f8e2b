#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/core/host_matrix.h"
#include "kernels/cpu/isa.h"
#include "kernels/params.h"

namespace paceline::kernels::cpu {

inline constexpr int kMaxHeadDim = 256;

/// head_dim up to a multiple of 16.
constexpr int padded_head_dim(int head_dim) { return (head_dim + 15) / 16 * 16; }

/// Queries that read the same keys: query heads of one cache head, in consecutive rows of one
/// sequence: a prompt's, or a last token and the draft tree behind it, whose rows share all but
/// their ancestors.
struct AttentionGroup {
  IndexRange rows;
  std::span<const std::int32_t> heads;  // query heads
  std::int32_t kv_head = 0;
  std::int32_t last_position = 0;  // the largest of the rows
  std::int32_t longest_row = 0;    // which of the rows that is
  /// Positions below stand in the slots of the same number for every row that sees them.
  std::int32_t shared_end = 0;

  int queries() const { return static_cast<int>(rows.size()) * static_cast<int>(heads.size()); }
  static constexpr int kMaxQueries = 32;
};

/// Online softmax of a group's queries, row by row, in a row head by head. Memory is the caller's.
struct AttentionState {
  float* max = nullptr;  // [queries]
  float* sum = nullptr;  // [queries]
  float* out = nullptr;  // [queries, padded_head_dim]

  static constexpr std::size_t kMostFloats =
      AttentionGroup::kMaxQueries * std::size_t{2 + kMaxHeadDim};

  /// Floats for a state: the outputs first, so that they are as aligned as the memory.
  static constexpr std::size_t floats(int queries, int head_dim) {
    return static_cast<std::size_t>(queries) * padded_head_dim(head_dim) +
           2 * static_cast<std::size_t>(queries);
  }
  static AttentionState in(float* memory, int queries, int head_dim) {
    float* rest = memory + static_cast<std::size_t>(queries) * padded_head_dim(head_dim);
    return {rest, rest + queries, memory};
  }
};

/// The best token so far and its score, t + noise.
struct NoisyBest {
  double score = 0;
  std::int32_t id = -1;
};

/// The last token that top-k and top-p keep: those with a larger t, and those of the same t and no
/// larger id.
struct SelectionCut {
  float t = 0;
  std::int32_t id = 0;
};

/// A histogram of t (see kernels/core/sampling.h): kPerUnit bins a unit from 0 downwards. What
/// falls in the last bin has weight 0, and cannot win whatever its noise.
struct NucleusBins {
  static constexpr std::int32_t kBins = 2048;
  static constexpr float kPerUnit = 64;
  std::uint32_t count[kBins] = {};
  std::uint64_t weight[kBins] = {};
};

struct RankedToken {
  float t = 0;
  std::int32_t id = 0;
  std::uint64_t weight = 0;
};

/// The kernels of one instruction set. Each works on a range of rows (or as said) on the calling
/// thread; all give the bits of `kernels/reference`.
struct RowOps {
  void (*sum_partials)(const SumPartialsParams&, IndexRange elements);
  void (*rms_norm)(const RmsNormParams&, IndexRange rows);
  void (*rope_table)(const RopeTableParams&, IndexRange rows);
  void (*rope_append)(const RopeAppendParams&, IndexRange rows);
  /// LinearInput's kSiluMul of `count` elements.
  void (*silu_mul)(const float* gate, const float* up, float* out, std::int64_t count);
  void (*token_log_probs)(const TokenLogProbsParams&, IndexRange rows);
  void (*activate)(const ActivateParams&, IndexRange rows);
  void (*top_log_probs)(const TopLogProbsParams&, IndexRange rows);

  /// The state of the segment that starts at position `begin`, for the queries that see any of it.
  void (*attention_segment)(const AttentionParams&, const AttentionGroup&, std::int32_t begin,
                            const AttentionState& state);
  /// total = total merged with that segment's state, for the same queries.
  void (*attention_merge)(const AttentionParams&, const AttentionGroup&, std::int32_t begin,
                          const AttentionState& total, const AttentionState& segment);
  /// out = total.out / total.sum.
  void (*attention_store)(const AttentionParams&, const AttentionGroup&,
                          const AttentionState& total);

  /// Of a range that is not empty.
  LargestLogit (*largest_logit)(const float* logits, IndexRange ids);
  /// Adds a range of tokens to the bins.
  void (*nucleus_bins)(const float* logits, IndexRange ids, float max, float temperature,
                       NucleusBins& bins);
  /// Writes a range's tokens that fall in a bin, by ascending id; returns their number.
  std::size_t (*tokens_in_bin)(const float* logits, IndexRange ids, float max, float temperature,
                               std::int32_t bin, RankedToken* tokens);
  /// The best of `start` and the range's kept tokens. ids.begin is a multiple of 4; start.score is
  /// that of a kept token.
  NoisyBest (*noisy_best)(const float* logits, IndexRange ids, float max, const SamplingRow& row,
                          const SelectionCut& cut, NoisyBest start);
};

const RowOps& row_ops(Isa isa);

}  // namespace paceline::kernels::cpu
