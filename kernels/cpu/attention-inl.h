// Attention of a group of queries over one segment, in the order of kernels/reference/attention.cc.
// Included once per instruction set.

#if defined(PACELINE_KERNELS_CPU_ATTENTION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PACELINE_KERNELS_CPU_ATTENTION_INL_H_
#undef PACELINE_KERNELS_CPU_ATTENTION_INL_H_
#else
#define PACELINE_KERNELS_CPU_ATTENTION_INL_H_
#endif

#include <algorithm>
#include <limits>

#include "hwy/highway.h"
#include "kernels/core/half.h"
#include "kernels/core/kv_address.h"
#include "kernels/cpu/exact_math-inl.h"
#include "kernels/cpu/lanes-inl.h"
#include "kernels/cpu/row_ops.h"

HWY_BEFORE_NAMESPACE();
namespace paceline::kernels::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

static_assert(kAttentionBlock == kLanes);

/// The keys or values of one block as fp32 rows, padded to a multiple of 16 columns with +0.
class KvBlock {
 public:
  /// Rows of positions begin ... begin + count - 1, as `row` sees them; the other pointers repeat
  /// the first.
  HWY_INLINE void load(const AttentionParams& params, const AttentionGroup& group,
                       const RowPlace& row, KvPart part, std::int32_t begin, int count) {
    const KvPool& kv = params.kv;
    const auto offset = [&](std::int32_t slot) {
      return kv_offset(kv, params.page_table, row.sequence, slot, params.layer, part,
                       group.kv_head);
    };
    // 16 aligned slots never straddle a page.
    const bool in_order = begin + count <= row.base;
    const std::int64_t first = in_order ? offset(begin) : 0;
    for (int j = 0; j < count; ++j) {
      const std::int64_t at = in_order ? first + std::int64_t{j} * kv.head_dim
                                       : offset(slot_of_position(row, params.ancestors, begin + j));
      rows_[j] = widen(kv, at, copies_ + j * padded_head_dim(kv.head_dim));
    }
    for (int j = count; j < kAttentionBlock; ++j) rows_[j] = rows_[0];
  }

  HWY_INLINE const float* row(int j) const { return rows_[j]; }

 private:
  static HWY_INLINE const float* widen(const KvPool& kv, std::int64_t at, float* copy) {
    const int size = kv.head_dim;
    if (kv.format == KvFormat::kFp32) {
      const float* stored = reinterpret_cast<const float*>(kv.data) + at;
      if (size % kLanes == 0) return stored;
      for (std::int64_t d = 0; d < padded_head_dim(size); d += kWidth) {
        hn::StoreU(load_part(stored, d, size), FloatTag(), copy + d);
      }
      return copy;
    }
    const std::uint16_t* stored = reinterpret_cast<const std::uint16_t*>(kv.data) + at;
    const hn::RebindToUnsigned<FloatTag> du;
    const hn::Rebind<std::uint16_t, FloatTag> du16;
    std::int64_t d = 0;
    for (; d + kWidth <= size; d += kWidth) {
      const auto bits = hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(du16, stored + d)));
      hn::StoreU(hn::BitCast(FloatTag(), bits), FloatTag(), copy + d);
    }
    for (; d < size; ++d) copy[d] = bf16_to_fp32(stored[d]);
    for (; d < padded_head_dim(size); ++d) copy[d] = 0.0f;
    return copy;
  }

  const float* rows_[kAttentionBlock];
  alignas(64) float copies_[kAttentionBlock * kMaxHeadDim];
};

/// The last two steps of four trees at once: element 4 b + i of the result is the sum of block b
/// (of four lanes) of w[i].
HWY_INLINE FloatVec sum_blocks(const FloatVec (&w)[4]) {
  const FloatTag d;
  const DoubleTag dd;
  const auto x = hn::Add(hn::InterleaveLower(d, w[0], w[1]), hn::InterleaveUpper(d, w[0], w[1]));
  const auto y = hn::Add(hn::InterleaveLower(d, w[2], w[3]), hn::InterleaveUpper(d, w[2], w[3]));
  const auto x2 = hn::BitCast(dd, x);
  const auto y2 = hn::BitCast(dd, y);
  return hn::Add(hn::BitCast(d, hn::InterleaveLower(dd, x2, y2)),
                 hn::BitCast(d, hn::InterleaveUpper(dd, x2, y2)));
}

/// Lanes i + (i + 4) of x and of y: even blocks of the result are x's, odd ones y's.
HWY_INLINE FloatVec add_adjacent_blocks(FloatVec x, FloatVec y) {
  return hn::Add(hn::OddEvenBlocks(hn::SwapAdjacentBlocks(y), x),
                 hn::OddEvenBlocks(y, hn::SwapAdjacentBlocks(x)));
}

/// Dot products of one query with the block's 16 keys, times the scale.
HWY_INLINE void score(const float* HWY_RESTRICT query, const KvBlock& keys, std::int64_t dim,
                      FloatVec scale, FloatVec (&scores)[kVectors]) {
  const FloatTag d;
  if constexpr (kVectors == 1) {
    FloatVec sums[kAttentionBlock];
    for (FloatVec& sum : sums) sum = hn::Zero(d);
    for (std::int64_t k = 0; k < dim; k += kLanes) {
      const auto q = hn::LoadU(d, query + k);
      for (int j = 0; j < kAttentionBlock; ++j) {
        sums[j] = hn::MulAdd(q, hn::LoadU(d, keys.row(j) + k), sums[j]);
      }
    }
    FloatVec w[4];
    for (int i = 0; i < 4; ++i) {
      const auto add_halves = [&](int low, int high) HWY_ATTR {
        return hn::Add(hn::ConcatLowerLower(d, sums[high], sums[low]),
                       hn::ConcatUpperUpper(d, sums[high], sums[low]));
      };
      w[i] = add_adjacent_blocks(add_halves(i, i + 8), add_halves(i + 4, i + 12));
    }
    scores[0] = hn::Mul(sum_blocks(w), scale);
  } else {
    for (int half = 0; half < kVectors; ++half) {
      FloatVec w[4];
      for (int i = 0; i < 4; ++i) {
        const float* key0 = keys.row(8 * half + i);
        const float* key1 = keys.row(8 * half + i + 4);
        auto low0 = hn::Zero(d);
        auto high0 = hn::Zero(d);
        auto low1 = hn::Zero(d);
        auto high1 = hn::Zero(d);
        for (std::int64_t k = 0; k < dim; k += kLanes) {
          const auto q_low = hn::LoadU(d, query + k);
          const auto q_high = hn::LoadU(d, query + k + kWidth);
          low0 = hn::MulAdd(q_low, hn::LoadU(d, key0 + k), low0);
          high0 = hn::MulAdd(q_high, hn::LoadU(d, key0 + k + kWidth), high0);
          low1 = hn::MulAdd(q_low, hn::LoadU(d, key1 + k), low1);
          high1 = hn::MulAdd(q_high, hn::LoadU(d, key1 + k + kWidth), high1);
        }
        w[i] = add_adjacent_blocks(hn::Add(low0, high0), hn::Add(low1, high1));
      }
      scores[half] = hn::Mul(sum_blocks(w), scale);
    }
  }
}

/// One query's softmax over one block: updates max and sum, fills the block's weights, returns what
/// `out` is to be multiplied by first.
HWY_INLINE float weigh(const FloatVec (&scores)[kVectors], int visible, float& max, float& sum,
                       float* HWY_RESTRICT weights) {
  const FloatTag d;
  const auto old_max = hn::Set(d, max);
  hn::Mask<FloatTag> seen[kVectors];
  auto largest = old_max;
  for (int v = 0; v < kVectors; ++v) {
    seen[v] = hn::FirstN(d, elements_left(v * kWidth, visible));
    const auto larger = hn::And(seen[v], hn::Gt(scores[v], largest));
    largest = hn::IfThenElse(larger, scores[v], largest);
  }
  const auto new_max = hn::MaxOfLanes(d, largest);
  FloatVec lanes[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    lanes[v] = hn::IfThenElseZero(seen[v], exp(hn::Sub(scores[v], new_max)));
    hn::StoreU(lanes[v], d, weights + v * kWidth);
  }
  const float change = max - hn::GetLane(new_max);
  const float rescale = change == 0 ? 1.0f : exact::exp(change);  // exp(0) is 1
  sum = std::fma(sum, rescale, sum_lanes(lanes));
  max = hn::GetLane(new_max);
  return rescale;
}

/// out = out * rescale, then fma(weights[j], values.row(j), out) for j < visible.
HWY_INLINE void add_values(const KvBlock& values, int visible, const float* HWY_RESTRICT weights,
                           float rescale, std::int64_t dim, float* HWY_RESTRICT out) {
  constexpr int kChunk = 4 * kVectors;  // 64 floats stay in registers
  const FloatTag d;
  const auto factor = hn::Set(d, rescale);
  std::int64_t k = 0;
  for (; k + kChunk * kWidth <= dim; k += kChunk * kWidth) {
    FloatVec sums[kChunk];
    for (int c = 0; c < kChunk; ++c) {
      sums[c] = hn::Mul(hn::LoadU(d, out + k + c * kWidth), factor);
    }
    for (int j = 0; j < visible; ++j) {
      const auto weight = hn::Set(d, weights[j]);
      const float* value = values.row(j) + k;
      for (int c = 0; c < kChunk; ++c) {
        sums[c] = hn::MulAdd(weight, hn::LoadU(d, value + c * kWidth), sums[c]);
      }
    }
    for (int c = 0; c < kChunk; ++c) hn::StoreU(sums[c], d, out + k + c * kWidth);
  }
  for (; k < dim; k += kWidth) {
    auto sum = hn::Mul(hn::LoadU(d, out + k), factor);
    for (int j = 0; j < visible; ++j) {
      sum = hn::MulAdd(hn::Set(d, weights[j]), hn::LoadU(d, values.row(j) + k), sum);
    }
    hn::StoreU(sum, d, out + k);
  }
}

/// Positions of [begin, begin + size) that a row sees.
HWY_INLINE int visible_positions(const RowPlace& row, std::int32_t begin, int size) {
  return std::clamp(row.position + 1 - begin, 0, size);
}

void attention_segment(const AttentionParams& params, const AttentionGroup& group,
                       std::int32_t begin, const AttentionState& state) {
  const FloatTag d;
  const int head_dim = params.kv.head_dim;
  const std::int64_t dim = padded_head_dim(head_dim);
  const int heads = static_cast<int>(group.heads.size());
  const int queries = group.queries();
  const RowPlace* rows = params.rows_at + group.rows.begin;

  alignas(64) float copies[AttentionGroup::kMaxQueries * kMaxHeadDim];
  const float* query[AttentionGroup::kMaxQueries];
  for (int q = 0; q < queries; ++q) {
    query[q] = params.qkv + (group.rows.begin + q / heads) * params.qkv_stride +
               group.heads[q % heads] * head_dim;
    if (head_dim % kLanes != 0) {
      float* copy = copies + q * dim;
      for (std::int64_t k = 0; k < dim; k += kWidth) {
        hn::StoreU(load_part(query[q], k, head_dim), d, copy + k);
      }
      query[q] = copy;
    }
  }
  std::fill_n(state.max, queries, -std::numeric_limits<float>::infinity());
  std::fill_n(state.sum, queries, 0.0f);
  std::fill_n(state.out, queries * dim, 0.0f);

  const auto scale = hn::Set(d, params.scale);
  const std::int32_t end = std::min(begin + kAttentionSegment, group.last_position + 1);
  const RowPlace& last = rows[group.rows.size() - 1];
  KvBlock keys, values;
  alignas(64) float weights[AttentionGroup::kMaxQueries][kAttentionBlock];
  float rescale[AttentionGroup::kMaxQueries];
  for (std::int32_t t = begin; t < end; t += kAttentionBlock) {
    const int count = std::min(kAttentionBlock, end - t);
    keys.load(params, group, last, KvPart::kKey, t, count);
    values.load(params, group, last, KvPart::kValue, t, count);
    for (int q = 0; q < queries; ++q) {
      const int visible = visible_positions(rows[q / heads], t, kAttentionBlock);
      if (visible == 0) continue;
      FloatVec scores[kVectors];
      score(query[q], keys, dim, scale, scores);
      rescale[q] = weigh(scores, visible, state.max[q], state.sum[q], weights[q]);
    }
    for (int q = 0; q < queries; ++q) {
      const int visible = visible_positions(rows[q / heads], t, kAttentionBlock);
      if (visible == 0) continue;
      add_values(values, visible, weights[q], rescale[q], dim, state.out + q * dim);
    }
  }
}

void attention_merge(const AttentionParams& params, const AttentionGroup& group, std::int32_t begin,
                     const AttentionState& total, const AttentionState& segment) {
  const FloatTag d;
  const std::int64_t dim = padded_head_dim(params.kv.head_dim);
  const int heads = static_cast<int>(group.heads.size());
  for (int q = 0; q < group.queries(); ++q) {
    if (params.rows_at[group.rows.begin + q / heads].position < begin) continue;
    const float max = segment.max[q] > total.max[q] ? segment.max[q] : total.max[q];
    const float a = exact::exp(total.max[q] - max);
    const float b = exact::exp(segment.max[q] - max);
    total.max[q] = max;
    total.sum[q] = std::fma(total.sum[q], a, segment.sum[q] * b);
    for (std::int64_t k = q * dim; k < (q + 1) * dim; k += kWidth) {
      const auto added = hn::Mul(hn::LoadU(d, segment.out + k), hn::Set(d, b));
      hn::StoreU(hn::MulAdd(hn::LoadU(d, total.out + k), hn::Set(d, a), added), d, total.out + k);
    }
  }
}

void attention_store(const AttentionParams& params, const AttentionGroup& group,
                     const AttentionState& total) {
  const FloatTag d;
  const int head_dim = params.kv.head_dim;
  const std::int64_t dim = padded_head_dim(head_dim);
  const int heads = static_cast<int>(group.heads.size());
  for (int q = 0; q < group.queries(); ++q) {
    const std::int64_t row = group.rows.begin + q / heads;
    float* out = params.out + (row * params.num_heads + group.heads[q % heads]) * head_dim;
    const auto sum = hn::Set(d, total.sum[q]);
    for (std::int64_t k = 0; k < head_dim; k += kWidth) {
      store_part(hn::Div(hn::LoadU(d, total.out + q * dim + k), sum), out, k, head_dim);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace paceline::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
