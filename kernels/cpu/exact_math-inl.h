// kernels/core/exact_math.h on vectors: the same operations in the same order, so the same bits.
// Included once per instruction set.

#if defined(PACELINE_KERNELS_CPU_EXACT_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PACELINE_KERNELS_CPU_EXACT_MATH_INL_H_
#undef PACELINE_KERNELS_CPU_EXACT_MATH_INL_H_
#else
#define PACELINE_KERNELS_CPU_EXACT_MATH_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/core/exact_math.h"

HWY_BEFORE_NAMESPACE();
namespace paceline::kernels::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class D, std::size_t N>
HWY_INLINE hn::Vec<D> polynomial(D d, hn::Vec<D> x, const hn::TFromD<D> (&c)[N]) {
  hn::Vec<D> sum = hn::Set(d, c[N - 1]);
  for (std::size_t i = N - 1; i-- > 0;) sum = hn::MulAdd(sum, x, hn::Set(d, c[i]));
  return sum;
}

/// 2^n of integers that lie in the exponent's range.
HWY_INLINE auto power_of_two(hn::Vec<hn::ScalableTag<std::int32_t>> n) {
  const hn::ScalableTag<std::int32_t> di;
  return hn::BitCast(hn::ScalableTag<float>(),
                     hn::ShiftLeft<23>(hn::Add(n, hn::Set(di, std::int32_t{127}))));
}
HWY_INLINE auto power_of_two(hn::Vec<hn::ScalableTag<std::int64_t>> n) {
  const hn::ScalableTag<std::int64_t> di;
  return hn::BitCast(hn::ScalableTag<double>(),
                     hn::ShiftLeft<52>(hn::Add(n, hn::Set(di, std::int64_t{1023}))));
}

/// x * 2^n of an integer n, rounded once.
HWY_INLINE auto scale_by_power(hn::Vec<hn::ScalableTag<float>> x,
                               hn::Vec<hn::ScalableTag<float>> n) {
#if HWY_TARGET == HWY_AVX3
  return hn::Vec<hn::ScalableTag<float>>{_mm512_scalef_ps(x.raw, n.raw)};
#else
  const auto e = hn::ConvertTo(hn::ScalableTag<std::int32_t>(), n);
  const auto half = hn::ShiftRight<1>(e);
  return hn::Mul(hn::Mul(x, power_of_two(half)), power_of_two(hn::Sub(e, half)));
#endif
}

/// exact::exp of floats.
HWY_INLINE hn::Vec<hn::ScalableTag<float>> exp(hn::Vec<hn::ScalableTag<float>> x) {
  using namespace exact::constants;
  const hn::ScalableTag<float> d;
  // Of x86's minimum and maximum a NaN passes that is the second operand.
  x = hn::Min(hn::Set(d, kExpMaxFloat), x);
  x = hn::Max(hn::Set(d, kExpMinFloat), x);
  const auto round = hn::Set(d, kRoundFloat);
  const auto n = hn::Sub(hn::MulAdd(x, hn::Set(d, kLog2eFloat), round), round);
  auto r = hn::NegMulAdd(n, hn::Set(d, kLn2HighFloat), x);
  r = hn::NegMulAdd(n, hn::Set(d, kLn2LowFloat), r);
  const auto p =
      hn::Add(hn::MulAdd(hn::Mul(r, r), polynomial(d, r, kExpFloat), r), hn::Set(d, 1.0f));
  return scale_by_power(p, n);
}

/// exact::exp of doubles that are neither NaN nor above 710.
HWY_INLINE hn::Vec<hn::ScalableTag<double>> exp(hn::Vec<hn::ScalableTag<double>> x) {
  using namespace exact::constants;
  const hn::ScalableTag<double> d;
  const hn::ScalableTag<std::int64_t> di;
  x = hn::IfThenElse(hn::Lt(x, hn::Set(d, kExpMin)), hn::Set(d, kExpMin), x);
  const auto round = hn::Set(d, kRoundDouble);
  const auto rounded = hn::MulAdd(x, hn::Set(d, kLog2e), round);
  const auto n = hn::Sub(rounded, round);
  auto r = hn::NegMulAdd(n, hn::Set(d, kLn2High), x);
  r = hn::NegMulAdd(n, hn::Set(d, kLn2Low), r);
  const auto p = hn::Add(hn::MulAdd(hn::Mul(r, r), polynomial(d, r, kExp), r), hn::Set(d, 1.0));
  const auto e = hn::Sub(hn::BitCast(di, rounded), hn::BitCast(di, round));
  // An arithmetic shift of 64 bits is not one instruction of AVX2; these are small: n >> 1 is
  // taken from n + 2^11.
  const auto bias = hn::Set(di, std::int64_t{1} << 11);
  const hn::ScalableTag<std::uint64_t> du;
  const auto half = hn::Sub(hn::BitCast(di, hn::ShiftRight<1>(hn::BitCast(du, hn::Add(e, bias)))),
                            hn::Set(di, std::int64_t{1} << 10));
  return hn::Mul(hn::Mul(p, power_of_two(half)), power_of_two(hn::Sub(e, half)));
}

}  // namespace HWY_NAMESPACE
}  // namespace paceline::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
