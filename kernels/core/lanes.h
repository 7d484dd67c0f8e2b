#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/core/host_device.h"

/// Sums in 16 virtual lanes: element k goes to lane k mod 16, each lane is one chain from +0, k
/// ascending; then lanes i and i + 8 are added, then i + 4, i + 2, i + 1. The last elements are
/// padded with +0 to a multiple of 16. So the sum does not depend on how wide a machine's vectors
/// are.
namespace paceline::kernels {

inline constexpr int kLanes = 16;

/// The lanes' sum. Overwrites the lanes.
template <typename T>
PACELINE_HOST_DEVICE T sum_lanes(T (&lanes)[kLanes]) {
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

/// Sum of a[k] * b[k], each lane a chain of fma.
PACELINE_HOST_DEVICE inline float dot_lanes(const float* a, const float* b, std::int64_t size) {
  float lanes[kLanes] = {};
  for (std::int64_t k = 0; k < size; k += kLanes) {
    for (int i = 0; i < kLanes; ++i) {
      const bool inside = k + i < size;
      lanes[i] = std::fma(inside ? a[k + i] : 0.0f, inside ? b[k + i] : 0.0f, lanes[i]);
    }
  }
  return sum_lanes(lanes);
}

}  // namespace paceline::kernels
