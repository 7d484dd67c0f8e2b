#pragma once

#include <bit>
#include <cstdint>

#include "kernels/core/host_device.h"

// Scalar conversions between fp32 and OCP's 8-bit E4M3 ("OCP 8-bit Floating Point Specification",
// the format that PyTorch calls float8_e4m3fn): sign, 4 bits of exponent with bias 7, 3 of
// mantissa. No infinities; the largest number is 448, the least 2^-9; all bits but the sign set is
// NaN.

namespace paceline::kernels {

inline constexpr float kLargestFp8 = 448.0f;

/// Exact.
PACELINE_HOST_DEVICE inline float fp8_to_fp32(std::uint8_t value) {
  const std::uint32_t sign = std::uint32_t{value & 0x80u} << 24;
  const std::uint32_t magnitude = value & 0x7fu;
  if (magnitude == 0x7f) return std::bit_cast<float>(sign | 0x7fc00000u);
  if (magnitude >= 8) return std::bit_cast<float>(sign | ((magnitude << 20) + (120u << 23)));
  const float tiny = static_cast<float>(magnitude) * 0x1p-9f;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(tiny));
}

/// Rounded to nearest, ties to even, as the hardware's satfinite conversion: what is larger than
/// 448, infinity too, becomes 448; NaN becomes 0x7f.
PACELINE_HOST_DEVICE inline std::uint8_t fp32_to_fp8(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = bits >> 24 & 0x80u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7f;
  if (magnitude >= 0x43e00000u) return static_cast<std::uint8_t>(sign | 0x7eu);  // 448
  if (magnitude >= 0x3c800000u) {  // 2^-6: a normal number
    const std::uint32_t rounded = magnitude + 0x7ffffu + (magnitude >> 20 & 1u);
    return static_cast<std::uint8_t>(sign | ((rounded >> 20) - (120u << 3)));
  }
  // Adding 2^14 leaves the multiple of 2^-9 in the low bits of the sum, rounded by the addition.
  const float shifted = std::bit_cast<float>(magnitude) + 0x1p14f;
  return static_cast<std::uint8_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x46800000u));
}

}  // namespace paceline::kernels
