// The 16 lanes of kernels/core/lanes.h in vectors: one of AVX-512, two of AVX2. Included once per
// instruction set.

#if defined(PACELINE_KERNELS_CPU_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PACELINE_KERNELS_CPU_LANES_INL_H_
#undef PACELINE_KERNELS_CPU_LANES_INL_H_
#else
#define PACELINE_KERNELS_CPU_LANES_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/core/lanes.h"

HWY_BEFORE_NAMESPACE();
namespace paceline::kernels::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::ScalableTag<float>;
using FloatVec = hn::Vec<FloatTag>;
using DoubleTag = hn::ScalableTag<double>;
using DoubleVec = hn::Vec<DoubleTag>;

/// Floats of one vector, and vectors of 16 lanes.
inline constexpr std::int64_t kWidth = static_cast<int>(hn::MaxLanes(FloatTag()));
inline constexpr int kVectors = kLanes / static_cast<int>(kWidth);
static_assert(kVectors == 1 || kVectors == 2);

/// How many of a vector's elements lie below `size`, the first being `begin`.
HWY_INLINE std::size_t elements_left(std::int64_t begin, std::int64_t size) {
  return static_cast<std::size_t>(std::clamp<std::int64_t>(size - begin, 0, kWidth));
}

/// The vector at data[begin], elements from `size` on as +0 and not read.
HWY_INLINE FloatVec load_part(const float* data, std::int64_t begin, std::int64_t size) {
  const FloatTag d;
  if (begin + kWidth <= size) return hn::LoadU(d, data + begin);
  const std::size_t left = elements_left(begin, size);
  if (left == 0) return hn::Zero(d);
  return hn::MaskedLoad(hn::FirstN(d, left), d, data + begin);
}

/// Stores what lies below `size`.
HWY_INLINE void store_part(FloatVec v, float* data, std::int64_t begin, std::int64_t size) {
  const FloatTag d;
  if (begin + kWidth <= size) {
    hn::StoreU(v, d, data + begin);
  } else if (const std::size_t left = elements_left(begin, size); left > 0) {
    hn::BlendedStore(v, hn::FirstN(d, left), d, data + begin);
  }
}

/// The tree's last steps, from four lanes.
HWY_INLINE float sum_four(hn::Vec<hn::Full128<float>> v) {
  v = hn::Add(v, hn::Shuffle1032(v));
  return hn::GetLane(hn::Add(v, hn::Shuffle2301(v)));
}

/// Lanes i and i + 8, then i + 4, i + 2, i + 1.
template <class V>
HWY_INLINE float sum_lanes(const V (&lanes)[kVectors]) {
  const hn::Full256<float> d8;
  const hn::Full128<float> d4;
  hn::Vec<hn::Full256<float>> eight;
  if constexpr (kVectors == 1) {
    eight = hn::Add(hn::LowerHalf(d8, lanes[0]), hn::UpperHalf(d8, lanes[0]));
  } else {
    eight = hn::Add(lanes[0], lanes[1]);
  }
  return sum_four(hn::Add(hn::LowerHalf(d4, eight), hn::UpperHalf(d4, eight)));
}

/// dot_lanes.
HWY_INLINE float dot(const float* a, const float* b, std::int64_t size) {
  FloatVec lanes[kVectors];
  for (FloatVec& lane : lanes) lane = hn::Zero(FloatTag());
  for (std::int64_t k = 0; k < size; k += kLanes) {
    for (int v = 0; v < kVectors; ++v) {
      const std::int64_t begin = k + v * kWidth;
      lanes[v] = hn::MulAdd(load_part(a, begin, size), load_part(b, begin, size), lanes[v]);
    }
  }
  return sum_lanes(lanes);
}

}  // namespace HWY_NAMESPACE
}  // namespace paceline::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
