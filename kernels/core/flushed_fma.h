#pragma once

#include <cmath>
#include <limits>

namespace paceline::kernels {

/// A zero of the same sign in place of a denormal.
inline float flushed(float value) {
  return std::fabs(value) < std::numeric_limits<float>::min() ? std::copysign(0.0f, value) : value;
}

/// a * b + sum as the chains of bf16 products take it: rounded once, to nearest, with denormals
/// flushed before and after. It is what AVX512-BF16's VDPBF16PS does for the upper and then for the
/// lower halves of its operands ("FP32 FMA with daz in, ftz out and RNE rounding": Intel 64 and
/// IA-32 Architectures Software Developer's Manual, volume 2), and what every x86-64 FMA does while
/// MXCSR says FTZ and DAZ. a and b are bf16 numbers.
inline float flushed_fma(float a, float b, float sum) {
  constexpr float kSmallest = std::numeric_limits<float>::min();  // 2^-126
  a = flushed(a);
  b = flushed(b);
  sum = flushed(sum);
  const float result = std::fma(a, b, sum);
  if (std::fabs(result) == kSmallest) {
    // What the denormals' coarser steps have rounded up to it is flushed unless 24 bits round it up
    // as well. So near to it double is exact.
    const double exact = static_cast<double>(a) * b + sum;
    if (std::fabs(exact) < 0x1p-126 - 0x1p-151) return std::copysign(0.0f, result);
  }
  return flushed(result);
}

}  // namespace paceline::kernels
