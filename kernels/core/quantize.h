#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/core/host_device.h"

namespace paceline::kernels {

/// The activation scale of a group, and what its elements are multiplied by before rounding.
struct GroupScale {
  float scale = 0;
  float inverse = 0;
};

/// The scale that follows from a group's largest magnitude, taken on the bits (sign cleared) so
/// that NaN, then infinity, are the largest. A group that is not finite gets the scale NaN, which
/// poisons every output of its row; one below 1e-30 counts as zero.
PACELINE_HOST_DEVICE inline GroupScale group_scale(std::uint32_t largest_magnitude) {
  constexpr float kSmallest = 1e-30f;
  if (largest_magnitude >= 0x7f800000u) return {std::numeric_limits<float>::quiet_NaN(), 0};
  const float largest = std::bit_cast<float>(largest_magnitude);
  if (largest < kSmallest) return {0, 0};
  return {largest / 127.0f, 127.0f / largest};
}

/// An element of a group of that scale: x * inverse rounded to nearest even, within [-127, 127]; 0
/// if the scale is NaN or zero.
PACELINE_HOST_DEVICE inline std::int8_t quantize_element(float x, const GroupScale& scale) {
  if (scale.inverse == 0) return 0;
  return static_cast<std::int8_t>(std::clamp(std::nearbyint(x * scale.inverse), -127.0f, 127.0f));
}

/// Quantizes `count` activations of one group to q[0..group) (zeros behind `count`) with
/// x ~ scale * q. Returns the scale; `sum` becomes the sum of q. The definition that every
/// instruction set reproduces.
///
/// Example: {1, -2, 0.5} -> q {64, -127, 32}, scale 2/127, sum -31.
PACELINE_HOST_DEVICE inline float quantize_group(const float* in, int count, int group,
                                                 std::int8_t* q, std::int32_t& sum) {
  std::uint32_t largest = 0;
  for (int i = 0; i < count; ++i) {
    largest = std::max(largest, std::bit_cast<std::uint32_t>(in[i]) & 0x7fffffffu);
  }
  const GroupScale scale = group_scale(largest);
  sum = 0;
  for (int i = 0; i < group; ++i) {
    q[i] = i < count ? quantize_element(in[i], scale) : std::int8_t{0};
    sum += q[i];
  }
  return scale.scale;
}

}  // namespace paceline::kernels
