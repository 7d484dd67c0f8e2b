// The passes over the vocabulary that choosing a token takes. Included once per instruction set.

#if defined(PACELINE_KERNELS_CPU_SELECT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PACELINE_KERNELS_CPU_SELECT_INL_H_
#undef PACELINE_KERNELS_CPU_SELECT_INL_H_
#else
#define PACELINE_KERNELS_CPU_SELECT_INL_H_
#endif

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "hwy/highway.h"
#include "kernels/core/philox.h"
#include "kernels/core/sampling.h"
#include "kernels/cpu/exact_math-inl.h"
#include "kernels/cpu/lanes-inl.h"
#include "kernels/cpu/row_ops.h"

HWY_BEFORE_NAMESPACE();
namespace paceline::kernels::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// The largest of logits[0 .. size), and whether all are finite. size > 0.
HWY_INLINE bool largest_finite(const float* logits, std::int64_t size, float& max) {
  const FloatTag d;
  const hn::RebindToSigned<FloatTag> di;
  constexpr int kUnroll = 4;
  FloatVec best[kUnroll];
  hn::Vec<decltype(di)> magnitude[kUnroll];  // the largest bits of an absolute value
  for (int u = 0; u < kUnroll; ++u) {
    best[u] = hn::Set(d, logits[0]);
    magnitude[u] = hn::Zero(di);
  }
  std::int64_t i = 0;
  for (; i + kUnroll * kWidth <= size; i += kUnroll * kWidth) {
    for (int u = 0; u < kUnroll; ++u) {
      const auto v = hn::LoadU(d, logits + i + u * kWidth);
      best[u] = hn::Max(best[u], v);
      magnitude[u] = hn::Max(magnitude[u], hn::BitCast(di, hn::Abs(v)));
    }
  }
  for (int u = 1; u < kUnroll; ++u) {
    best[0] = hn::Max(best[0], best[u]);
    magnitude[0] = hn::Max(magnitude[0], magnitude[u]);
  }
  std::int32_t bits = hn::GetLane(hn::MaxOfLanes(di, magnitude[0]));
  max = hn::GetLane(hn::MaxOfLanes(d, best[0]));
  for (; i < size; ++i) {
    max = std::max(max, logits[i]);
    bits = std::max(bits, std::bit_cast<std::int32_t>(std::fabs(logits[i])));
  }
  return bits < 0x7f800000;
}

LargestLogit largest_logit(const float* logits, IndexRange ids) {
  constexpr std::int64_t kChunk = 2048;
  LargestLogit found;
  std::int64_t chunk = ids.begin;  // the first that holds the largest
  for (std::int64_t begin = ids.begin; begin < ids.end; begin += kChunk) {
    float max;
    if (!largest_finite(logits + begin, std::min(kChunk, ids.end - begin), max)) {
      found.all_finite = 0;
      return found;
    }
    if (begin == ids.begin || max > found.logit) {
      found.logit = max;
      chunk = begin;
    }
  }
  const float* first = std::find(logits + chunk, logits + ids.end, found.logit);
  found.id = static_cast<std::int32_t>(first - logits);
  return found;
}

/// scaled_logit.
HWY_INLINE FloatVec scaled_logits(FloatVec logits, FloatVec max, FloatVec temperature) {
  return hn::Add(hn::Div(hn::Sub(logits, max), temperature), hn::Zero(FloatTag()));
}

HWY_INLINE FloatVec finite_temperature(float temperature) {
  return hn::Set(FloatTag(), std::min(temperature, std::numeric_limits<float>::max()));
}

HWY_INLINE auto bin_of(FloatVec t) {
  const FloatTag d;
  const auto scaled = hn::Mul(t, hn::Set(d, -NucleusBins::kPerUnit));
  return hn::ConvertTo(hn::RebindToSigned<FloatTag>(),
                       hn::Min(scaled, hn::Set(d, float{NucleusBins::kBins - 1})));
}

void nucleus_bins(const float* logits, IndexRange ids, float max, float temperature,
                  NucleusBins& bins) {
  const FloatTag d;
  const hn::RebindToSigned<FloatTag> di;
  const auto largest = hn::Set(d, max);
  const auto divisor = finite_temperature(temperature);
  alignas(64) std::int32_t bin[kWidth];
  alignas(64) float probability[kWidth];
  for (std::int64_t id = ids.begin; id < ids.end; id += kWidth) {
    const auto t = scaled_logits(load_part(logits, id, ids.end), largest, divisor);
    hn::Store(bin_of(t), di, bin);
    hn::Store(exp(t), d, probability);
    const std::size_t left = elements_left(id, ids.end);
    for (std::size_t i = 0; i < left; ++i) {
      ++bins.count[bin[i]];
      bins.weight[bin[i]] += fixed_point(probability[i]);
    }
  }
}

std::size_t tokens_in_bin(const float* logits, IndexRange ids, float max, float temperature,
                          std::int32_t bin, RankedToken* tokens) {
  const FloatTag d;
  const hn::RebindToSigned<FloatTag> di;
  const auto largest = hn::Set(d, max);
  const auto divisor = finite_temperature(temperature);
  alignas(64) float t_of[kWidth];
  alignas(64) float probability[kWidth];
  std::size_t count = 0;
  for (std::int64_t id = ids.begin; id < ids.end; id += kWidth) {
    const auto t = scaled_logits(load_part(logits, id, ids.end), largest, divisor);
    const auto inside = hn::FirstN(di, elements_left(id, ids.end));
    const auto hit = hn::And(hn::Eq(bin_of(t), hn::Set(di, bin)), inside);
    if (hn::AllFalse(di, hit)) continue;
    std::uint8_t bytes[8] = {};
    hn::StoreMaskBits(di, hit, bytes);
    hn::Store(t, d, t_of);
    hn::Store(exp(t), d, probability);
    for (unsigned bits = bytes[0] | bytes[1] << 8; bits != 0; bits &= bits - 1) {
      const int i = std::countr_zero(bits);
      tokens[count++] = {t_of[i], static_cast<std::int32_t>(id + i), fixed_point(probability[i])};
    }
  }
  return count;
}

using WideTag = hn::ScalableTag<std::uint64_t>;
using WideVec = hn::Vec<WideTag>;
inline constexpr int kWide = static_cast<int>(hn::MaxLanes(WideTag()));

/// The random numbers of 2 kWidth tokens from group `first` on, in the order of their ids.
HWY_INLINE void sampling_numbers(const SamplingRow& row, std::uint32_t first,
                                 hn::Vec<hn::RebindToUnsigned<FloatTag>> (&numbers)[2]) {
  const WideTag d;
  const hn::RebindToUnsigned<FloatTag> du;
  // The 32-bit words stand in 64-bit elements; what the upper halves hold is ignored by MulEven.
  // Lane i is given the group that the interleaving below puts in its place.
  alignas(64) std::uint64_t groups[kWide];
  for (int i = 0; i < kWide; ++i) groups[i] = first + i / 2 + (i % 2) * (kWide / 2);
  WideVec c0 = hn::Set(d, row.index & 0xffffffff);
  WideVec c1 = hn::Set(d, row.index >> 32);
  WideVec c2 = hn::Load(d, groups);
  WideVec c3 = hn::Zero(d);
  const auto multiplier0 = hn::BitCast(du, hn::Set(d, std::uint64_t{Philox::kMultiplier0}));
  const auto multiplier1 = hn::BitCast(du, hn::Set(d, std::uint64_t{Philox::kMultiplier1}));
  auto key0 = static_cast<std::uint32_t>(row.seed);
  auto key1 = static_cast<std::uint32_t>(row.seed >> 32);
  for (int round = 0; round < Philox::kRounds; ++round) {
    const WideVec product0 = hn::MulEven(hn::BitCast(du, c0), multiplier0);
    const WideVec product1 = hn::MulEven(hn::BitCast(du, c2), multiplier1);
    c0 = hn::Xor(hn::Xor(hn::ShiftRight<32>(product1), c1), hn::Set(d, std::uint64_t{key0}));
    c2 = hn::Xor(hn::Xor(hn::ShiftRight<32>(product0), c3), hn::Set(d, std::uint64_t{key1}));
    c1 = product1;
    c3 = product0;
    key0 += Philox::kWeyl0;
    key1 += Philox::kWeyl1;
  }
  const auto low = hn::Set(d, 0xffffffff);
  const auto first_pair = hn::Or(hn::And(c0, low), hn::ShiftLeft<32>(c1));
  const auto second_pair = hn::Or(hn::And(c2, low), hn::ShiftLeft<32>(c3));
  numbers[0] = hn::BitCast(du, hn::InterleaveLower(d, first_pair, second_pair));
  numbers[1] = hn::BitCast(du, hn::InterleaveUpper(d, first_pair, second_pair));
}

/// Finds the best of kept tokens, computing the noise only where it can matter.
///
/// With u = (x + 1/2) / 2^32 and -log u > 1 - u, a token's score t - log(-log u) reaches `best`
/// only if 1 - u < exp(t - best). Left, rounded down: (2^32 - 1 - x) >> 8 in units of 2^-24.
/// Right, rounded up: `best` is lowered and the result raised by more than fp32's rounding. Where
/// even the largest noise, below 23, cannot reach `best`, the random numbers are not needed either.
class NoisySearch {
 public:
  HWY_INLINE NoisySearch(const SamplingRow& row, const SelectionCut& cut, NoisyBest start)
      : row_(row), cut_(cut), best_(start) {
    update_bound();
  }

  HWY_INLINE bool reachable(FloatVec t) const {
    const FloatTag d;
    return !hn::AllFalse(d, hn::Ge(t, hn::Set(d, bound_ - 23.0f)));
  }

  HWY_INLINE void add(FloatVec t, hn::Vec<hn::RebindToUnsigned<FloatTag>> numbers,
                      std::int64_t first_id, std::int64_t end) {
    const FloatTag d;
    const hn::RebindToUnsigned<FloatTag> du;
    const hn::RebindToSigned<FloatTag> di;
    const auto have = hn::ConvertTo(d, hn::BitCast(di, hn::ShiftRight<8>(hn::Not(numbers))));
    const auto need =
        hn::Mul(exp(hn::Sub(t, hn::Set(d, bound_))), hn::Set(d, 0x1p24f * (1.0f + 0x1p-10f)));
    const auto inside = hn::FirstN(d, elements_left(first_id, end));
    const auto candidates = hn::And(hn::Le(have, need), inside);
    if (hn::AllFalse(d, candidates)) return;
    alignas(64) float t_of[kWidth];
    alignas(64) std::uint32_t x_of[kWidth];
    std::uint8_t bytes[8] = {};
    hn::Store(t, d, t_of);
    hn::Store(numbers, du, x_of);
    hn::StoreMaskBits(d, candidates, bytes);
    for (unsigned bits = bytes[0] | bytes[1] << 8; bits != 0; bits &= bits - 1) {
      const int i = std::countr_zero(bits);
      consider(t_of[i], x_of[i], static_cast<std::int32_t>(first_id + i));
    }
  }

  HWY_INLINE NoisyBest best() const { return best_; }

 private:
  void consider(float t, std::uint32_t x, std::int32_t id) {
    if (t < cut_.t || (t == cut_.t && id > cut_.id)) return;
    const double score = static_cast<double>(t) + gumbel(x);
    if (score > best_.score || (score == best_.score && id < best_.id)) {
      best_ = {score, id};
      update_bound();
    }
  }

  // Scores of winners lie between gumbel(0) and gumbel(2^32 - 1), so within 23 of 0: 1e-5 covers
  // the rounding.
  void update_bound() { bound_ = static_cast<float>(best_.score) - 1e-5f; }

  const SamplingRow& row_;
  const SelectionCut& cut_;
  NoisyBest best_;
  float bound_;
};

NoisyBest noisy_best(const float* logits, IndexRange ids, float max, const SamplingRow& row,
                     const SelectionCut& cut, NoisyBest start) {
  const FloatTag d;
  const auto largest = hn::Set(d, max);
  const auto divisor = finite_temperature(row.temperature);
  NoisySearch search(row, cut, start);
  for (std::int64_t id = ids.begin; id < ids.end; id += 2 * kWidth) {
    const auto t0 = scaled_logits(load_part(logits, id, ids.end), largest, divisor);
    const auto t1 = scaled_logits(load_part(logits, id + kWidth, ids.end), largest, divisor);
    if (!search.reachable(hn::Max(t0, t1))) continue;
    hn::Vec<hn::RebindToUnsigned<FloatTag>> numbers[2];
    sampling_numbers(row, static_cast<std::uint32_t>(id / 4), numbers);
    search.add(t0, numbers[0], id, ids.end);
    search.add(t1, numbers[1], id + kWidth, ids.end);
  }
  return search.best();
}

}  // namespace HWY_NAMESPACE
}  // namespace paceline::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
