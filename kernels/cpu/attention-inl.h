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
#include <type_traits>

#include "hwy/cache_control.h"
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

/// Queries that are computed together: what is read once for all of them is worth the more, the
/// more there are, until registers run out.
inline constexpr int kQueriesAtOnce = kVectors == 1 ? 4 : 2;

HWY_INLINE FloatVec load_element(const float* from) { return hn::LoadU(FloatTag(), from); }
HWY_INLINE FloatVec load_element(const std::uint16_t* bf16) {
  const hn::RebindToUnsigned<FloatTag> du;
  const hn::Rebind<std::uint16_t, FloatTag> du16;
  return hn::BitCast(FloatTag(), hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(du16, bf16))));
}

HWY_INLINE FloatVec load_element(const std::int8_t* from) {
  const hn::RebindToSigned<FloatTag> di;
  const hn::Rebind<std::int8_t, FloatTag> di8;
  return hn::ConvertTo(FloatTag(), hn::PromoteTo(di, hn::LoadU(di8, from)));
}

/// The keys or values of one block, in the pool's format. They are widened as they are used:
/// copies would cost more than widening them for every few queries.
template <class Element>
class KvBlock {
 public:
  static constexpr bool kScaled = std::is_same_v<Element, std::int8_t>;

  /// Rows of positions begin ... begin + count - 1, as `row` sees them; the other pointers repeat
  /// the first.
  HWY_INLINE void find(const AttentionParams& params, const AttentionGroup& group,
                       const RowPlace& row, KvPart part, std::int32_t begin, int count) {
    const KvPool& kv = params.kv;
    const auto* data = reinterpret_cast<const Element*>(kv.data);
    const auto offset = [&](std::int32_t slot) {
      return kv_offset(kv, params.page_table, row.sequence, slot, params.layer, part,
                       group.kv_head);
    };
    if (begin + count <= row.base) {
      // 16 aligned slots never straddle a page.
      const std::int64_t first = offset(begin);
      for (int j = 0; j < count; ++j) rows_[j] = data + first + std::int64_t{j} * kv.head_dim;
      if constexpr (kScaled) std::copy_n(&kv_scale(kv, first, begin), count, scales_);
    } else {
      for (int j = 0; j < count; ++j) {
        const std::int32_t slot = slot_of_position(row, params.ancestors, begin + j);
        const std::int64_t at = offset(slot);
        rows_[j] = data + at;
        if constexpr (kScaled) scales_[j] = kv_scale(kv, at, slot);
      }
    }
    if (kv.head_dim % kLanes != 0) pad(kv.head_dim, count);
    for (int j = count; j < kAttentionBlock; ++j) rows_[j] = rows_[0];
    if constexpr (kScaled) std::fill(scales_ + count, scales_ + kAttentionBlock, 0.0f);
  }

  HWY_INLINE const Element* row(int j) const { return rows_[j]; }

  /// What belongs to keys or values v * kWidth and following, times their scales.
  HWY_INLINE FloatVec scaled(FloatVec x, int v) const {
    if constexpr (kScaled) x = hn::Mul(x, hn::LoadU(FloatTag(), scales_ + v * kWidth));
    return x;
  }

  /// Asks for what stands `blocks` blocks behind this one, in its page or beyond.
  HWY_INLINE void prefetch(int head_dim, int blocks) const {
    const auto* from = reinterpret_cast<const std::byte*>(
        rows_[0] + std::int64_t{blocks} * kAttentionBlock * head_dim);
    const std::size_t bytes =
        sizeof(Element) * kAttentionBlock * static_cast<std::size_t>(head_dim);
    for (std::size_t at = 0; at < bytes; at += 64) hwy::Prefetch(from + at);
  }

 private:
  // Rows padded with +0 to a multiple of 16.
  HWY_INLINE void pad(int head_dim, int count) {
    const int padded = padded_head_dim(head_dim);
    for (int j = 0; j < count; ++j) {
      Element* copy = copies_ + j * padded;
      std::copy_n(rows_[j], head_dim, copy);
      std::fill(copy + head_dim, copy + padded, Element{});
      rows_[j] = copy;
    }
  }

  const Element* rows_[kAttentionBlock];
  float scales_[kAttentionBlock];  // if kScaled
  alignas(64) Element copies_[kAttentionBlock * kMaxHeadDim];
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

struct Sum {
  HWY_INLINE FloatVec operator()(FloatVec a, FloatVec b) const { return hn::Add(a, b); }
};
struct Largest {
  HWY_INLINE FloatVec operator()(FloatVec a, FloatVec b) const { return hn::Max(a, b); }
};

/// Lanes i and i + 4 of x and of y, put together: even blocks of the result are x's, odd ones y's.
template <class Op = Sum>
HWY_INLINE FloatVec fold_adjacent_blocks(FloatVec x, FloatVec y, const Op& op = {}) {
  return op(hn::OddEvenBlocks(hn::SwapAdjacentBlocks(y), x),
            hn::OddEvenBlocks(y, hn::SwapAdjacentBlocks(x)));
}

/// Lanes i and i + 8 of x, of 16, then of y.
template <class Op = Sum>
HWY_INLINE FloatVec fold_halves(FloatVec x, FloatVec y, const Op& op = {}) {
  const FloatTag d;
  return op(hn::ConcatLowerLower(d, y, x), hn::ConcatUpperUpper(d, y, x));
}

// Where the 16 lanes of kQueriesAtOnce queries are put together at once, each comes to have a block
// of four lanes of one vector: of four queries the first has block 0, the others 2, 1 and 3.

constexpr int folded_lane(int query) {
  return 4 * (kVectors == 1 ? query % 2 * 2 + query / 2 : query);
}

/// Each query's lanes as one tree: i and i + 8, i + 4, i + 2, i + 1. All four lanes of its block
/// have the result.
template <class Op>
HWY_INLINE FloatVec fold(const FloatVec (*lanes)[kVectors], const Op& op) {
  FloatVec v;
  if constexpr (kVectors == 1) {
    v = fold_adjacent_blocks(fold_halves(lanes[0][0], lanes[1][0], op),
                             fold_halves(lanes[2][0], lanes[3][0], op), op);
  } else {
    v = fold_adjacent_blocks(op(lanes[0][0], lanes[0][1]), op(lanes[1][0], lanes[1][1]), op);
  }
  v = op(v, hn::Shuffle1032(v));
  return op(v, hn::Shuffle2301(v));
}

/// *values[q] in all lanes of query q's block.
HWY_INLINE FloatVec in_folded_lanes(const float* const (&values)[kQueriesAtOnce]) {
  const FloatTag d;
  if constexpr (kVectors == 1) {
    const auto even = hn::ConcatUpperLower(d, hn::Set(d, *values[1]), hn::Set(d, *values[0]));
    const auto odd = hn::ConcatUpperLower(d, hn::Set(d, *values[3]), hn::Set(d, *values[2]));
    return hn::OddEvenBlocks(odd, even);
  } else {
    return hn::OddEvenBlocks(hn::Set(d, *values[1]), hn::Set(d, *values[0]));
  }
}

/// Dot products of each query with the block's 16 keys, times the keys' scales and the scale.
template <int kQueries, class Element>
HWY_INLINE void score(const float* const* HWY_RESTRICT queries, const KvBlock<Element>& keys,
                      std::int64_t dim, FloatVec scale, FloatVec (*scores)[kVectors]) {
  const FloatTag d;
  if constexpr (kVectors == 1) {
    FloatVec w[kQueries][4];
    for (int i = 0; i < 4; ++i) {
      // Keys i, i + 8, i + 4, i + 12: those whose sums meet first in the tree.
      FloatVec sums[kQueries][4];
      for (auto& of_query : sums) {
        for (FloatVec& sum : of_query) sum = hn::Zero(d);
      }
      const Element* key[4] = {keys.row(i), keys.row(i + 8), keys.row(i + 4), keys.row(i + 12)};
      for (std::int64_t k = 0; k < dim; k += kLanes) {
        for (int j = 0; j < 4; ++j) {
          const auto element = load_element(key[j] + k);
          for (int q = 0; q < kQueries; ++q) {
            sums[q][j] = hn::MulAdd(hn::LoadU(d, queries[q] + k), element, sums[q][j]);
          }
        }
      }
      for (int q = 0; q < kQueries; ++q) {
        w[q][i] = fold_adjacent_blocks(fold_halves(sums[q][0], sums[q][1]),
                                       fold_halves(sums[q][2], sums[q][3]));
      }
    }
    for (int q = 0; q < kQueries; ++q) {
      scores[q][0] = hn::Mul(keys.scaled(sum_blocks(w[q]), 0), scale);
    }
  } else {
    for (int half = 0; half < kVectors; ++half) {
      FloatVec w[kQueries][4];
      for (int i = 0; i < 4; ++i) {
        const Element* key[2] = {keys.row(8 * half + i), keys.row(8 * half + i + 4)};
        FloatVec low[kQueries][2], high[kQueries][2];
        for (int q = 0; q < kQueries; ++q) {
          for (int j = 0; j < 2; ++j) low[q][j] = high[q][j] = hn::Zero(d);
        }
        for (std::int64_t k = 0; k < dim; k += kLanes) {
          for (int j = 0; j < 2; ++j) {
            const auto key_low = load_element(key[j] + k);
            const auto key_high = load_element(key[j] + k + kWidth);
            for (int q = 0; q < kQueries; ++q) {
              low[q][j] = hn::MulAdd(hn::LoadU(d, queries[q] + k), key_low, low[q][j]);
              high[q][j] = hn::MulAdd(hn::LoadU(d, queries[q] + k + kWidth), key_high, high[q][j]);
            }
          }
        }
        for (int q = 0; q < kQueries; ++q) {
          w[q][i] =
              fold_adjacent_blocks(hn::Add(low[q][0], high[q][0]), hn::Add(low[q][1], high[q][1]));
        }
      }
      for (int q = 0; q < kQueries; ++q) {
        scores[q][half] = hn::Mul(keys.scaled(sum_blocks(w[q]), half), scale);
      }
    }
  }
}

/// The queries' softmax over one block: updates each max and sum, fills the block's weights and
/// what `out` is to be multiplied by first. Where there are fewer queries than can be folded at
/// once the last one stands for the missing, too.
template <int kQueries>
HWY_INLINE void weigh(const FloatVec (*scores)[kVectors], const int* visible, float* max,
                      float* sum, float (*weights)[kAttentionBlock], float* rescale) {
  const FloatTag d;
  const auto none = hn::Set(d, -std::numeric_limits<float>::infinity());
  hn::Mask<FloatTag> seen[kQueries][kVectors];
  FloatVec lanes[kQueriesAtOnce][kVectors];
  const float* old_maxima[kQueriesAtOnce];
  const float* old_sums[kQueriesAtOnce];
  for (int i = 0; i < kQueriesAtOnce; ++i) {
    const int q = std::min(i, kQueries - 1);
    old_maxima[i] = max + q;
    old_sums[i] = sum + q;
    for (int v = 0; v < kVectors; ++v) {
      if (i == q) seen[q][v] = hn::FirstN(d, elements_left(v * kWidth, visible[q]));
      const auto counts = hn::And(seen[q][v], hn::Gt(scores[q][v], none));  // a NaN does not
      lanes[i][v] = hn::IfThenElse(counts, scores[q][v], none);
    }
  }
  const auto old_max = in_folded_lanes(old_maxima);
  const auto new_max = hn::Max(old_max, fold(lanes, Largest()));
  alignas(64) float maxima[kWidth];
  hn::Store(new_max, d, maxima);
  for (int i = 0; i < kQueriesAtOnce; ++i) {
    const int q = std::min(i, kQueries - 1);
    const auto largest = hn::Set(d, maxima[folded_lane(q)]);
    for (int v = 0; v < kVectors; ++v) {
      if (i != q) {
        lanes[i][v] = lanes[q][v];
        continue;
      }
      lanes[q][v] = hn::IfThenElseZero(seen[q][v], exp(hn::Sub(scores[q][v], largest)));
      hn::StoreU(lanes[q][v], d, weights[q] + v * kWidth);
    }
  }
  const auto change = exp(hn::Sub(old_max, new_max));
  alignas(64) float sums[kWidth];
  alignas(64) float changes[kWidth];
  hn::Store(hn::MulAdd(in_folded_lanes(old_sums), change, fold(lanes, Sum())), d, sums);
  hn::Store(change, d, changes);
  for (int q = 0; q < kQueries; ++q) {
    max[q] = maxima[folded_lane(q)];
    sum[q] = sums[folded_lane(q)];
    rescale[q] = changes[folded_lane(q)];
  }
}

/// out = out * rescale, then fma(weights[j], values.row(j), out) for j < visible, for each query.
template <int kQueries, class Element>
HWY_INLINE void add_values(const KvBlock<Element>& values, int visible,
                           const float (*weights)[kAttentionBlock], const float* rescale,
                           std::int64_t dim, float* HWY_RESTRICT out) {
  constexpr int kChunk = 4;  // vectors
  const FloatTag d;
  std::int64_t k = 0;
  for (; k + kChunk * kWidth <= dim; k += kChunk * kWidth) {
    FloatVec sums[kQueries][kChunk];
    for (int q = 0; q < kQueries; ++q) {
      for (int c = 0; c < kChunk; ++c) {
        sums[q][c] = hn::Mul(hn::LoadU(d, out + q * dim + k + c * kWidth), hn::Set(d, rescale[q]));
      }
    }
    for (int j = 0; j < visible; ++j) {
      FloatVec value[kChunk];
      for (int c = 0; c < kChunk; ++c) value[c] = load_element(values.row(j) + k + c * kWidth);
      for (int q = 0; q < kQueries; ++q) {
        const auto weight = hn::Set(d, weights[q][j]);
        for (int c = 0; c < kChunk; ++c) sums[q][c] = hn::MulAdd(weight, value[c], sums[q][c]);
      }
    }
    for (int q = 0; q < kQueries; ++q) {
      for (int c = 0; c < kChunk; ++c) {
        hn::StoreU(sums[q][c], d, out + q * dim + k + c * kWidth);
      }
    }
  }
  for (; k < dim; k += kWidth) {
    for (int q = 0; q < kQueries; ++q) {
      auto sum = hn::Mul(hn::LoadU(d, out + q * dim + k), hn::Set(d, rescale[q]));
      for (int j = 0; j < visible; ++j) {
        sum = hn::MulAdd(hn::Set(d, weights[q][j]), load_element(values.row(j) + k), sum);
      }
      hn::StoreU(sum, d, out + q * dim + k);
    }
  }
}

/// Positions of [begin, begin + size) that a row sees.
HWY_INLINE int visible_positions(const RowPlace& row, std::int32_t begin, int size) {
  return std::clamp(row.position + 1 - begin, 0, size);
}

/// The queries of a group and where their online softmax stands.
struct QueryStates {
  const float* const* query;  // [queries]
  const int* visible;         // [queries]: keys of the current block
  AttentionState state;
};

/// Adds one block to the states of queries first ... first + kQueries - 1, each of which sees some
/// of it.
template <int kQueries, class Element>
HWY_INLINE void add_block(const QueryStates& queries, int first, const KvBlock<Element>& keys,
                          const KvBlock<Element>& values, std::int64_t dim, FloatVec scale) {
  FloatVec scores[kQueries][kVectors];
  alignas(64) float weights[kQueries][kAttentionBlock];
  float rescale[kQueries];
  score<kQueries>(queries.query + first, keys, dim, scale, scores);
  const int* visible = queries.visible + first;
  weigh<kQueries>(scores, visible, queries.state.max + first, queries.state.sum + first, weights,
                  rescale);
  bool alike = true;
  for (int q = 0; q < kQueries; ++q) {
    if constexpr (KvBlock<Element>::kScaled) {
      const FloatTag d;
      for (int v = 0; v < kVectors; ++v) {
        float* some = weights[q] + v * kWidth;
        hn::StoreU(values.scaled(hn::LoadU(d, some), v), d, some);
      }
    }
    alike &= visible[q] == visible[0];
  }
  float* out = queries.state.out + first * dim;
  if (alike) {
    add_values<kQueries>(values, visible[0], weights, rescale, dim, out);
  } else {
    for (int q = 0; q < kQueries; ++q) {
      add_values<1>(values, visible[q], weights + q, rescale + q, dim, out + q * dim);
    }
  }
}

/// The same for queries [begin, end), past those that see nothing of the block.
template <class Element>
HWY_INLINE void add_block(const QueryStates& queries, int begin, int end,
                          const KvBlock<Element>& keys, const KvBlock<Element>& values,
                          std::int64_t dim, FloatVec scale) {
  while (begin < end) {
    if (queries.visible[begin] == 0) {
      ++begin;
      continue;
    }
    int count = 1;
    while (count < kQueriesAtOnce && begin + count < end && queries.visible[begin + count] > 0) {
      ++count;
    }
    switch (count) {
      case 4:
        add_block<4>(queries, begin, keys, values, dim, scale);
        break;
      case 3:
        add_block<3>(queries, begin, keys, values, dim, scale);
        break;
      case 2:
        add_block<2>(queries, begin, keys, values, dim, scale);
        break;
      default:
        add_block<1>(queries, begin, keys, values, dim, scale);
    }
    begin += count;
  }
}

template <class Element>
HWY_INLINE void add_segment(const AttentionParams& params, const AttentionGroup& group,
                            std::int32_t begin, const float* const* query,
                            const AttentionState& state) {
  const std::int64_t dim = padded_head_dim(params.kv.head_dim);
  const int heads = static_cast<int>(group.heads.size());
  const RowPlace* rows = params.rows_at + group.rows.begin;
  const int num_rows = static_cast<int>(group.rows.size());
  const auto scale = hn::Set(FloatTag(), params.scale);
  const std::int32_t end = std::min(begin + kAttentionSegment, group.last_position + 1);
  int visible[AttentionGroup::kMaxQueries];
  const QueryStates queries{query, visible, state};
  KvBlock<Element> keys, values;
  for (std::int32_t t = begin; t < end; t += kAttentionBlock) {
    const int count = std::min(kAttentionBlock, end - t);
    for (int q = 0; q < group.queries(); ++q) {
      visible[q] = visible_positions(rows[q / heads], t, kAttentionBlock);
    }
    const auto add = [&](const RowPlace& row, int of_block, int first, int last) HWY_ATTR {
      keys.find(params, group, row, KvPart::kKey, t, of_block);
      values.find(params, group, row, KvPart::kValue, t, of_block);
      add_block(queries, first, last, keys, values, dim, scale);
    };
    if (t + count <= group.shared_end) {
      // Any row that sees the whole block will do to find it.
      keys.find(params, group, rows[group.longest_row], KvPart::kKey, t, count);
      values.find(params, group, rows[group.longest_row], KvPart::kValue, t, count);
      keys.prefetch(params.kv.head_dim, 2);
      values.prefetch(params.kv.head_dim, 2);
      add_block(queries, 0, group.queries(), keys, values, dim, scale);
      continue;
    }
    for (int r = 0; r < num_rows; ++r) {
      const int seen = visible[r * heads];
      if (seen > 0) add(rows[r], seen, r * heads, (r + 1) * heads);
    }
  }
}

void attention_segment(const AttentionParams& params, const AttentionGroup& group,
                       std::int32_t begin, const AttentionState& state) {
  const FloatTag d;
  const int head_dim = params.kv.head_dim;
  const std::int64_t dim = padded_head_dim(head_dim);
  const int heads = static_cast<int>(group.heads.size());
  const int queries = group.queries();

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
  switch (params.kv.format) {
    case KvFormat::kFp32:
      return add_segment<float>(params, group, begin, query, state);
    case KvFormat::kBf16:
      return add_segment<std::uint16_t>(params, group, begin, query, state);
    case KvFormat::kInt8:
      return add_segment<std::int8_t>(params, group, begin, query, state);
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
