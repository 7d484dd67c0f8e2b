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
#include "kernels/cpu/exact_math-inl.h"
#include "kernels/cpu/fold-inl.h"
#include "kernels/cpu/kv_block-inl.h"
#include "kernels/cpu/lanes-inl.h"
#include "kernels/cpu/row_ops.h"

HWY_BEFORE_NAMESPACE();
namespace paceline::kernels::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Queries that are computed together: what is read once for all of them is worth the more, the
/// more there are, until registers run out.
inline constexpr int kQueriesAtOnce = kVectors == 1 ? 8 : 2;

/// How far before they are used keys and values are asked for.
inline constexpr int kBlocksAhead = 2;

/// Keeps the compiler from reading a value from memory again for each use.
HWY_INLINE FloatVec in_register(FloatVec v) {
  asm("" : "+v"(v.raw));
  return v;
}

/// Sums of products of each query with `kKeys` keys, lane by lane.
template <int kQueries, int kKeys, class Element>
HWY_INLINE void multiply_keys(const float* const* HWY_RESTRICT queries,
                              const Element* const (&keys)[kKeys], std::int64_t dim,
                              FloatVec (&sums)[kQueries][kKeys]) {
  const FloatTag d;
  for (auto& of_query : sums) {
    for (FloatVec& sum : of_query) sum = hn::Zero(d);
  }
  for (std::int64_t k = 0; k < dim; k += kLanes) {
    FloatVec query[kQueries];
    for (int q = 0; q < kQueries; ++q) query[q] = in_register(hn::LoadU(d, queries[q] + k));
    for (int j = 0; j < kKeys; ++j) {
      const auto elements = load_elements(keys[j] + k);
      for (int q = 0; q < kQueries; ++q) {
        sums[q][j] = hn::MulAdd(query[q], elements, sums[q][j]);
      }
    }
  }
}

/// Dot products of each query with the block's 16 keys, times the keys' scales and the scale.
template <int kQueries, class Element>
HWY_INLINE void score(const float* const* HWY_RESTRICT queries, const KvBlock<Element>& block,
                      std::int64_t dim, FloatVec scale, FloatVec (*scores)[kVectors]) {
  const FloatTag d;
  if constexpr (kVectors == 1) {
    FloatVec w[kQueries][4];
    for (int i = 0; i < 4; ++i) {
      // Keys i, i + 8, i + 4, i + 12: those whose sums meet first in the tree.
      if constexpr (kQueries > 4) {
        FloatVec low[kQueries][2], high[kQueries][2];
        multiply_keys<kQueries>(queries, {block.key(i), block.key(i + 8)}, dim, low);
        for (int q = 0; q < kQueries; ++q) low[q][0] = fold_halves(low[q][0], low[q][1]);
        multiply_keys<kQueries>(queries, {block.key(i + 4), block.key(i + 12)}, dim, high);
        for (int q = 0; q < kQueries; ++q) {
          w[q][i] = fold_adjacent_blocks(low[q][0], fold_halves(high[q][0], high[q][1]));
        }
      } else {
        FloatVec sums[kQueries][4];
        multiply_keys<kQueries>(
            queries, {block.key(i), block.key(i + 8), block.key(i + 4), block.key(i + 12)}, dim,
            sums);
        for (int q = 0; q < kQueries; ++q) {
          w[q][i] = fold_adjacent_blocks(fold_halves(sums[q][0], sums[q][1]),
                                         fold_halves(sums[q][2], sums[q][3]));
        }
      }
    }
    for (int q = 0; q < kQueries; ++q) {
      scores[q][0] = hn::Mul(block.times_key_scales(sum_blocks(w[q]), 0), scale);
    }
  } else {
    for (int half = 0; half < kVectors; ++half) {
      FloatVec w[kQueries][4];
      for (int i = 0; i < 4; ++i) {
        const Element* key[2] = {block.key(8 * half + i), block.key(8 * half + i + 4)};
        FloatVec low[kQueries][2], high[kQueries][2];
        for (int q = 0; q < kQueries; ++q) {
          for (int j = 0; j < 2; ++j) low[q][j] = high[q][j] = hn::Zero(d);
        }
        for (std::int64_t k = 0; k < dim; k += kLanes) {
          for (int j = 0; j < 2; ++j) {
            const auto key_low = load_elements(key[j] + k);
            const auto key_high = load_elements(key[j] + k + kWidth);
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
        scores[q][half] = hn::Mul(block.times_key_scales(sum_blocks(w[q]), half), scale);
      }
    }
  }
}

/// The softmax of kQueries, at most kFolded, over one block: updates each max and sum, fills the
/// block's weights and what `out` is to be multiplied by first.
template <int kQueries>
HWY_INLINE void weigh(const FloatVec (*scores)[kVectors], const int* visible, float* max,
                      float* sum, float (*weights)[kAttentionBlock], float* rescale) {
  const FloatTag d;
  const auto none = hn::Set(d, -std::numeric_limits<float>::infinity());
  hn::Mask<FloatTag> seen[kQueries][kVectors];
  FloatVec lanes[kFolded][kVectors];
  for (int q = 0; q < kFolded; ++q) {
    for (int v = 0; v < kVectors; ++v) {
      lanes[q][v] = none;
      if (q >= kQueries) continue;
      seen[q][v] = hn::FirstN(d, elements_left(v * kWidth, visible[q]));
      // x86's maximum is its second operand where the first is a NaN, which does not count.
      lanes[q][v] = hn::IfThenElse(seen[q][v], hn::Max(scores[q][v], none), none);
    }
  }
  const auto old_max = to_folded(max, kQueries);
  const auto new_max = hn::Max(old_max, fold(lanes, Largest()));
  for (int q = 0; q < kQueries; ++q) {
    const auto largest = of_query(new_max, q);
    for (int v = 0; v < kVectors; ++v) {
      lanes[q][v] = hn::IfThenElseZero(seen[q][v], exp(hn::Sub(scores[q][v], largest)));
      hn::StoreU(lanes[q][v], d, weights[q] + v * kWidth);
    }
  }
  const auto change = exp(hn::Sub(old_max, new_max));
  const auto old_sum = to_folded(sum, kQueries);
  from_folded(new_max, kQueries, max);
  from_folded(hn::MulAdd(old_sum, change, fold(lanes, Sum())), kQueries, sum);
  from_folded(change, kQueries, rescale);
}

/// out = out * rescale, then fma(weights[j], value j, out) for j < visible, for each query: of
/// elements k ... k + kPairs * 2 * kWidth - 1, as load_pair gives them.
template <int kQueries, int kPairs, class Element>
HWY_INLINE void add_pairs(const KvBlock<Element>& block, int visible,
                          const float (*weights)[kAttentionBlock], const float* rescale,
                          std::int64_t dim, std::int64_t k, float* HWY_RESTRICT out) {
  constexpr int kVectorsAtOnce = 2 * kPairs;
  const FloatTag d;
  FloatVec sums[kQueries][kVectorsAtOnce];
  for (int q = 0; q < kQueries; ++q) {
    for (int c = 0; c < kVectorsAtOnce; ++c) {
      sums[q][c] = hn::Mul(hn::LoadU(d, out + q * dim + k + c * kWidth), hn::Set(d, rescale[q]));
    }
  }
  for (int j = 0; j < visible; ++j) {
    VectorPair value[kPairs];
    for (int p = 0; p < kPairs; ++p) value[p] = load_pair(block.value(j) + k + 2 * p * kWidth);
    for (int q = 0; q < kQueries; ++q) {
      const auto weight = hn::Set(d, weights[q][j]);
      for (int p = 0; p < kPairs; ++p) {
        sums[q][2 * p] = hn::MulAdd(weight, value[p].first, sums[q][2 * p]);
        sums[q][2 * p + 1] = hn::MulAdd(weight, value[p].second, sums[q][2 * p + 1]);
      }
    }
  }
  for (int q = 0; q < kQueries; ++q) {
    for (int c = 0; c < kVectorsAtOnce; ++c) {
      hn::StoreU(sums[q][c], d, out + q * dim + k + c * kWidth);
    }
  }
}

/// The same for all of `out`. The last 16 elements of an odd number of them stand in their order.
template <int kQueries, class Element>
HWY_INLINE void add_values(const KvBlock<Element>& block, int visible,
                           const float (*weights)[kAttentionBlock], const float* rescale,
                           std::int64_t dim, float* HWY_RESTRICT out) {
  constexpr int kPairs = kQueries > 4 ? 1 : 2;
  const FloatTag d;
  std::int64_t k = 0;
  for (; k + kPairs * 2 * kWidth <= dim; k += kPairs * 2 * kWidth) {
    add_pairs<kQueries, kPairs>(block, visible, weights, rescale, dim, k, out);
  }
  for (; k + 2 * kWidth <= dim; k += 2 * kWidth) {
    add_pairs<kQueries, 1>(block, visible, weights, rescale, dim, k, out);
  }
  for (; k < dim; k += kWidth) {
    for (int q = 0; q < kQueries; ++q) {
      auto sum = hn::Mul(hn::LoadU(d, out + q * dim + k), hn::Set(d, rescale[q]));
      for (int j = 0; j < visible; ++j) {
        sum = hn::MulAdd(hn::Set(d, weights[q][j]), load_elements(block.value(j) + k), sum);
      }
      hn::StoreU(sum, d, out + q * dim + k);
    }
  }
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
HWY_INLINE void add_block(const QueryStates& queries, int first, const KvBlock<Element>& block,
                          std::int64_t dim, FloatVec scale) {
  FloatVec scores[kQueries][kVectors];
  alignas(64) float weights[kQueries][kAttentionBlock];
  float rescale[kQueries];
  score<kQueries>(queries.query + first, block, dim, scale, scores);
  const int* visible = queries.visible + first;
  float* max = queries.state.max + first;
  float* sum = queries.state.sum + first;
  for (int q = 0; q < kQueries; q += kFolded) {
    weigh<std::min(kQueries, kFolded)>(scores + q, visible + q, max + q, sum + q, weights + q,
                                       rescale + q);
  }
  bool alike = true;
  for (int q = 0; q < kQueries; ++q) {
    if constexpr (KvBlock<Element>::kScaled) {
      const FloatTag d;
      for (int v = 0; v < kVectors; ++v) {
        float* some = weights[q] + v * kWidth;
        hn::StoreU(block.times_value_scales(hn::LoadU(d, some), v), d, some);
      }
    }
    alike &= visible[q] == visible[0];
  }
  float* out = queries.state.out + first * dim;
  if (alike) {
    add_values<kQueries>(block, visible[0], weights, rescale, dim, out);
  } else {
    for (int q = 0; q < kQueries; ++q) {
      add_values<1>(block, visible[q], weights + q, rescale + q, dim, out + q * dim);
    }
  }
}

/// The same for queries [begin, end), past those that see nothing of the block.
template <class Element>
HWY_INLINE void add_block(const QueryStates& queries, int begin, int end,
                          const KvBlock<Element>& block, std::int64_t dim, FloatVec scale) {
  while (begin < end) {
    int count = 0;
    while (count < kQueriesAtOnce && begin + count < end && queries.visible[begin + count] > 0) {
      ++count;
    }
    if (count == 0) {
      ++begin;
      continue;
    }
    if constexpr (kQueriesAtOnce == 8) {
      if (count == 8) {
        add_block<8>(queries, begin, block, dim, scale);
      } else if (count >= 4) {
        count = 4;
        add_block<4>(queries, begin, block, dim, scale);
      } else if (count == 3) {
        add_block<3>(queries, begin, block, dim, scale);
      }
    }
    if (count == 2) add_block<2>(queries, begin, block, dim, scale);
    if (count == 1) add_block<1>(queries, begin, block, dim, scale);
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
  int last_position[AttentionGroup::kMaxQueries];
  for (int r = 0; r < num_rows; ++r) {
    std::fill_n(last_position + r * heads, heads, rows[r].position);
  }
  int visible[AttentionGroup::kMaxQueries];
  const QueryStates queries{query, visible, state};
  KvBlock<Element> block;
  for (std::int32_t t = begin; t < end; t += kAttentionBlock) {
    const int count = std::min(kAttentionBlock, end - t);
    for (int q = 0; q < group.queries(); ++q) {
      visible[q] = std::clamp(last_position[q] + 1 - t, 0, kAttentionBlock);
    }
    if (t + count <= group.shared_end) {
      // Any row that sees the whole block will do to find it.
      block.find(params, group, rows[group.longest_row], t, count);
      KvBlock<Element>::prefetch(params, group, rows[group.longest_row],
                                 t + kBlocksAhead * kAttentionBlock);
      add_block(queries, 0, group.queries(), block, dim, scale);
      continue;
    }
    for (int r = 0; r < num_rows; ++r) {
      const int seen = visible[r * heads];
      if (seen == 0) continue;
      block.find(params, group, rows[r], t, seen);
      add_block(queries, r * heads, (r + 1) * heads, block, dim, scale);
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
  constexpr std::int64_t kPair = 2 * kWidth;
  const FloatTag d;
  const int head_dim = params.kv.head_dim;
  const std::int64_t dim = padded_head_dim(head_dim);
  const int heads = static_cast<int>(group.heads.size());
  for (int q = 0; q < group.queries(); ++q) {
    const std::int64_t row = group.rows.begin + q / heads;
    float* out = params.out + (row * params.num_heads + group.heads[q % heads]) * head_dim;
    const float* elements = total.out + q * dim;
    const auto sum = hn::Set(d, total.sum[q]);
    std::int64_t k = 0;
    for (; k + kPair <= dim; k += kPair) {
      alignas(64) float pair[kPair], ordered[kPair];
      hn::Store(hn::Div(hn::LoadU(d, elements + k), sum), d, pair);
      hn::Store(hn::Div(hn::LoadU(d, elements + k + kWidth), sum), d, pair + kWidth);
      in_order(params.kv.format, pair, ordered);
      std::copy_n(ordered, std::min(kPair, head_dim - k), out + k);
    }
    for (; k < head_dim; k += kWidth) {
      store_part(hn::Div(hn::LoadU(d, elements + k), sum), out, k, head_dim);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace paceline::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
