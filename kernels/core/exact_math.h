#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>

#include "kernels/core/host_device.h"

/// Elementary functions that give the same bits on every machine: built from correctly rounded
/// operations only (add, multiply, divide, explicit fma), never from libm. The vector versions in
/// kernels/cpu/exact_math-inl.h do the same operations in the same order. A NaN argument gives a
/// NaN, whose payload and sign are not defined.
///
/// Always inlined, so that a function compiled for an instruction set with fma gets its
/// instruction; elsewhere std::fma is a call, with the same result.
namespace paceline::kernels::exact {

namespace constants {
// Adding and subtracting 1.5 * 2^(mantissa bits) rounds to the nearest integer, ties to even; the
// low bits of the sum then hold that integer.
inline constexpr float kRoundFloat = 12582912.0f;
inline constexpr double kRoundDouble = 6755399441055744.0;

// exp, fp32. ln 2 in two parts; n * kLn2HighFloat is subtracted exactly by one fma.
inline constexpr float kLog2eFloat = 0x1.715476p+0f;
inline constexpr float kLn2HighFloat = 0x1.62e430p-1f;
inline constexpr float kLn2LowFloat = -0x1.05c610p-29f;
// Beyond these exp is infinite, or below half the smallest denormal.
inline constexpr float kExpMaxFloat = 89.0f;
inline constexpr float kExpMinFloat = -104.0f;
// exp(r) = 1 + r + r^2 * (c[0] + c[1] r + ...), minimax over |r| <= ln(2) / 2, error 8e-9.
inline constexpr float kExpFloat[] = {0x1p-1f, 0x1.5554dcp-3f, 0x1.555518p-5f, 0x1.120be2p-7f,
                                      0x1.6d117cp-10f};

// ln 2 in double: kLn2High has 32 bits, so that an exponent times it is exact.
inline constexpr double kLog2e = 0x1.71547652b82fep+0;
inline constexpr double kLn2High = 0x1.62e42fee00000p-1;
inline constexpr double kLn2Low = 0x1.a39ef35793c76p-33;
inline constexpr double kExpMax = 710.0;
inline constexpr double kExpMin = -746.0;
// exp(r) = 1 + r + r^2 * (1/2! + r/3! + ... + r^11/13!).
inline constexpr double kExp[] = {
    1.0 / 2,     1.0 / 6,      1.0 / 24,      1.0 / 120,      1.0 / 720,       1.0 / 5040,
    1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800.0};

// log(1 + f) = f - s * (f - z * (2/3 + 2/5 z + ...)), s = f / (2 + f), z = s * s.
inline constexpr double kLog[] = {2.0 / 3,  2.0 / 5,  2.0 / 7,  2.0 / 9,  2.0 / 11, 2.0 / 13,
                                  2.0 / 15, 2.0 / 17, 2.0 / 19, 2.0 / 21, 2.0 / 23};

// pi / 2 in three parts of 53 bits.
inline constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;
inline constexpr double kHalfPi1 = 0x1.921fb54442d18p+0;
inline constexpr double kHalfPi2 = 0x1.1a62633145c07p-54;
inline constexpr double kHalfPi3 = -0x1.f1976b7ed8fbcp-110;
// sin(r) = r + r^3 * (-1/3! + r^2/5! - ...); cos(r) = 1 - r^2/2 + r^4 * (1/4! - r^2/6! + ...).
inline constexpr double kSin[] = {-1.0 / 6,
                                  1.0 / 120,
                                  -1.0 / 5040,
                                  1.0 / 362880,
                                  -1.0 / 39916800,
                                  1.0 / 6227020800.0,
                                  -1.0 / 1307674368000.0,
                                  1.0 / 355687428096000.0};
inline constexpr double kCos[] = {1.0 / 24,
                                  -1.0 / 720,
                                  1.0 / 40320,
                                  -1.0 / 3628800,
                                  1.0 / 479001600,
                                  -1.0 / 87178291200.0,
                                  1.0 / 20922789888000.0,
                                  -1.0 / 6402373705728000.0};
}  // namespace constants

/// c[i] + c[i + 1] x + c[i + 2] x^2 + ..., by Horner's rule with fma. The array is an argument of
/// the template because device code may use a constant's values, but not the array itself.
template <const auto& c, std::size_t i = 0, typename T>
[[gnu::always_inline]] PACELINE_HOST_DEVICE inline T polynomial(T x) {
  constexpr T coefficient = c[i];
  if constexpr (i + 1 == std::size(c)) {
    return coefficient;
  } else {
    return std::fma(polynomial<c, i + 1>(x), x, coefficient);
  }
}

/// 2^n for a normal result.
[[gnu::always_inline]] PACELINE_HOST_DEVICE inline float power_of_two(std::int32_t n) {
  return std::bit_cast<float>((n + 127) << 23);
}
[[gnu::always_inline]] PACELINE_HOST_DEVICE inline double power_of_two(std::int64_t n) {
  return std::bit_cast<double>((n + 1023) << 52);
}

/// e^x, within 1.05 ulp; the denormal range included. exp(-inf) = 0, exp(inf) = inf.
[[gnu::always_inline]] PACELINE_HOST_DEVICE inline float exp(float x) {
  using namespace constants;
  x = x > kExpMaxFloat ? kExpMaxFloat : x;
  x = x < kExpMinFloat ? kExpMinFloat : x;
  const float rounded = std::fma(x, kLog2eFloat, kRoundFloat);
  const float n = rounded - kRoundFloat;
  float r = std::fma(-n, kLn2HighFloat, x);
  r = std::fma(-n, kLn2LowFloat, r);
  const float p = std::fma(r * r, polynomial<kExpFloat>(r), r) + 1.0f;
  // Scaled in two steps: only the second one can round, overflow or underflow.
  const std::int32_t e = static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(rounded) -
                                                   std::bit_cast<std::uint32_t>(kRoundFloat));
  const std::int32_t half = x == x ? e >> 1 : 0;  // the bits of a NaN are no exponent
  const std::int32_t rest = x == x ? e - half : 0;
  return p * power_of_two(half) * power_of_two(rest);
}

namespace detail {
/// e^(high + low) for |low| far below |high|'s last bit.
[[gnu::always_inline]] PACELINE_HOST_DEVICE inline double exp_sum(double high, double low) {
  using namespace constants;
  if (high != high) return high;
  high = high > kExpMax ? kExpMax : high;
  high = high < kExpMin ? kExpMin : high;
  const double rounded = std::fma(high, kLog2e, kRoundDouble);
  const double n = rounded - kRoundDouble;
  double r = std::fma(-n, kLn2High, high);
  r = std::fma(-n, kLn2Low, r) + low;
  const double p = std::fma(r * r, polynomial<kExp>(r), r) + 1.0;
  const std::int64_t e = static_cast<std::int64_t>(std::bit_cast<std::uint64_t>(rounded) -
                                                   std::bit_cast<std::uint64_t>(kRoundDouble));
  const std::int64_t half = e >> 1;
  return p * power_of_two(half) * power_of_two(e - half);
}

/// x = 2^exponent * (1 + fraction), 1 + fraction in [sqrt(1/2), sqrt(2)); x positive and finite.
struct Split {
  double exponent;
  double fraction;
};
[[gnu::always_inline]] PACELINE_HOST_DEVICE inline Split split(double x) {
  std::int64_t exponent = 0;
  if (x < std::numeric_limits<double>::min()) {
    x *= 0x1p54;
    exponent = -54;
  }
  // Subtracting the bits of sqrt(1/2) makes the exponent field round at sqrt(2).
  constexpr std::uint64_t kSqrtHalf = 0x3fe6a09e667f3bcd;
  const std::uint64_t bits = std::bit_cast<std::uint64_t>(x);
  const std::int64_t shift = static_cast<std::int64_t>(bits - kSqrtHalf) >> 52;
  const double mantissa = std::bit_cast<double>(bits - (static_cast<std::uint64_t>(shift) << 52));
  return {static_cast<double>(shift + exponent), mantissa - 1.0};
}
}  // namespace detail

/// e^x, within 1 ulp; the denormal range included.
[[gnu::always_inline]] PACELINE_HOST_DEVICE inline double exp(double x) {
  return detail::exp_sum(x, 0.0);
}

/// Natural logarithm, within 1.5 ulp. log(0) = -inf, log(inf) = inf, of a negative number NaN.
[[gnu::always_inline]] PACELINE_HOST_DEVICE inline double log(double x) {
  using namespace constants;
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (x == 0) return -kInfinity;
  if (!(x > 0)) return std::numeric_limits<double>::quiet_NaN();
  if (x == kInfinity) return x;
  const auto [e, f] = detail::split(x);
  const double s = f / (2.0 + f);
  const double z = s * s;
  const double tail = std::fma(-z, polynomial<kLog>(z), f) * s;  // f - log(1 + f)
  return std::fma(e, kLn2High, f - std::fma(-e, kLn2Low, tail));
}

struct SinCos {
  double sin;
  double cos;
};

/// sin and cos of x, within 2 ulp, for |x| < 2^30; beyond, or if x is not finite, NaN.
[[gnu::always_inline]] PACELINE_HOST_DEVICE inline SinCos sin_cos(double x) {
  using namespace constants;
  if (!(x > -0x1p30 && x < 0x1p30)) {
    return {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::quiet_NaN()};
  }
  // x - n pi/2: the first part exactly, the second as a sum of two doubles (Knuth's two-sum).
  const double rounded = std::fma(x, kTwoOverPi, kRoundDouble);
  const double n = rounded - kRoundDouble;
  const double r1 = std::fma(-n, kHalfPi1, x);
  const double p = n * kHalfPi2;
  const double p_error = std::fma(n, kHalfPi2, -p);
  const double high = r1 - p;
  const double back = high - r1;
  double low = (r1 - (high - back)) - (p + back);
  low -= p_error;
  low = std::fma(-n, kHalfPi3, low);
  const double r = high + low;
  const double r_error = (high - r) + low;

  const double z = r * r;
  const double sine = r + std::fma(r * z, polynomial<kSin>(z), r_error);
  // 1 - z/2 with its rounding error given back.
  const double h = 0.5 * z;
  const double w = 1.0 - h;
  const double cosine = w + (((1.0 - w) - h) + std::fma(z * z, polynomial<kCos>(z), -r * r_error));
  const auto quadrant = std::bit_cast<std::uint64_t>(rounded) & 3;
  switch (quadrant) {
    case 0:
      return {sine, cosine};
    case 1:
      return {cosine, -sine};
    case 2:
      return {-sine, -cosine};
    default:
      return {-cosine, sine};
  }
}

/// x^y within 2 ulp, for positive finite x and finite y with a normal result; NaN for another x.
[[gnu::always_inline]] PACELINE_HOST_DEVICE inline double pow(double x, double y) {
  using namespace constants;
  if (!(x > 0) || x > std::numeric_limits<double>::max()) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  // log(x) as high + low, about 60 bits: 2 s from the atanh series as a sum of two doubles.
  const auto [e, f] = detail::split(x);
  const double d = 2.0 + f;
  const double d_error = f - (d - 2.0);
  const double s = f / d;
  const double s_error = (std::fma(-s, d, f) - s * d_error) / d;
  const double z = s * s;
  const double tail = s * z * polynomial<kLog>(z) + 2.0 * s_error;
  const double whole = e * kLn2High;  // exact
  double high = whole + 2.0 * s;
  double low = (whole == 0 ? 0.0 : 2.0 * s - (high - whole)) + std::fma(e, kLn2Low, tail);
  const double sum = high + low;
  low -= sum - high;
  high = sum;
  const double product = y * high;
  return detail::exp_sum(product, std::fma(y, high, -product) + y * low);
}

}  // namespace paceline::kernels::exact
