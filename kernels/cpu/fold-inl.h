// Several sums over 16 lanes at once, each in the order of kernels/core/lanes.h: i and i + 8, then
// i + 4, i + 2, i + 1. Two vectors are put together by blends and one shuffle. Included once per
// instruction set.

#if defined(PACELINE_KERNELS_CPU_FOLD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PACELINE_KERNELS_CPU_FOLD_INL_H_
#undef PACELINE_KERNELS_CPU_FOLD_INL_H_
#else
#define PACELINE_KERNELS_CPU_FOLD_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace paceline::kernels::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

struct Sum {
  HWY_INLINE FloatVec operator()(FloatVec a, FloatVec b) const { return hn::Add(a, b); }
};
struct Largest {
  HWY_INLINE FloatVec operator()(FloatVec a, FloatVec b) const { return hn::Max(a, b); }
};

/// Lanes i and i + 8 of x and of y, put together: x's in the lower half, y's in the upper.
template <class Op = Sum>
HWY_INLINE FloatVec fold_halves(FloatVec x, FloatVec y, const Op& op = {}) {
  const FloatTag d;
  return op(hn::ConcatUpperLower(d, y, x), hn::ConcatLowerUpper(d, y, x));
}

/// Lanes i and i + 4 of x and of y: even blocks of the result are x's, odd ones y's.
template <class Op = Sum>
HWY_INLINE FloatVec fold_adjacent_blocks(FloatVec x, FloatVec y, const Op& op = {}) {
  return op(hn::OddEvenBlocks(y, x), hn::SwapAdjacentBlocks(hn::OddEvenBlocks(x, y)));
}

/// The last two steps of four trees at once: element 4 b + i of the result is the sum of block b
/// (of four lanes) of w[i].
HWY_INLINE FloatVec sum_blocks(const FloatVec (&w)[4]) {
  const FloatTag d;
  const DoubleTag dd;
  const auto fold_pairs = [&](FloatVec x, FloatVec y) HWY_ATTR {
    const auto x2 = hn::BitCast(dd, x);
    const auto y2 = hn::BitCast(dd, y);
    return hn::Add(hn::BitCast(d, hn::OddEven(y2, x2)),
                   hn::Shuffle1032(hn::BitCast(d, hn::OddEven(x2, y2))));
  };
  const auto even = fold_pairs(w[0], w[2]);
  const auto odd = fold_pairs(w[1], w[3]);
  return hn::Add(hn::OddEven(odd, even), hn::Shuffle2301(hn::OddEven(even, odd)));
}

// Where the 16 lanes of a few queries are put together at once, each comes to have a block of four
// lanes of one vector: of four queries the first has block 0, the others 2, 1 and 3.
inline constexpr int kFolded = kVectors == 1 ? 4 : 2;

/// Each query's lanes as one tree. All four lanes of its block have the result.
template <class Op>
HWY_INLINE FloatVec fold(const FloatVec (&lanes)[kFolded][kVectors], const Op& op) {
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

/// values[q] in all lanes of query q's block; of `count` queries.
HWY_INLINE FloatVec to_folded(const float* values, int count) {
  const FloatTag d;
  if constexpr (kVectors == 1) {
    alignas(64) static constexpr std::int32_t kQueryOfLane[kLanes] = {0, 0, 0, 0, 2, 2, 2, 2,
                                                                      1, 1, 1, 1, 3, 3, 3, 3};
    const auto first = hn::MaskedLoad(hn::FirstN(d, static_cast<std::size_t>(count)), d, values);
    return hn::TableLookupLanes(first, hn::SetTableIndices(d, kQueryOfLane));
  } else {
    return hn::OddEvenBlocks(hn::Set(d, values[count - 1]), hn::Set(d, values[0]));
  }
}

/// The reverse.
HWY_INLINE void from_folded(FloatVec folded, int count, float* values) {
  const FloatTag d;
  if constexpr (kVectors == 1) {
    alignas(64) static constexpr std::int32_t kLaneOfQuery[kLanes] = {0, 8, 4, 12};
    const auto first = hn::TableLookupLanes(folded, hn::SetTableIndices(d, kLaneOfQuery));
    hn::BlendedStore(first, hn::FirstN(d, static_cast<std::size_t>(count)), d, values);
  } else {
    values[0] = hn::GetLane(folded);
    if (count > 1) values[1] = hn::GetLane(hn::UpperHalf(hn::Half<FloatTag>(), folded));
  }
}

/// Query q's value in all lanes.
HWY_INLINE FloatVec of_query(FloatVec folded, int query) {
  const FloatTag d;
  if constexpr (kVectors == 1) {
    const auto lane = hn::Set(hn::RebindToSigned<FloatTag>(), 4 * (query % 2 * 2 + query / 2));
    return hn::TableLookupLanes(folded, hn::IndicesFromVec(d, lane));
  } else {
    return query == 0 ? hn::ConcatLowerLower(d, folded, folded)
                      : hn::ConcatUpperUpper(d, folded, folded);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace paceline::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
