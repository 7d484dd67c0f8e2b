#pragma once

#include "kernels/core/host_device.h"

namespace paceline::kernels {

/// Inputs of one instruction of a tensor core, which adds 16 products to a sum. Of
/// AttentionMath::kBf16 head_dim is a multiple of it.
inline constexpr int kTensorInputs = 16;
inline constexpr int kMostTensorHeadDim = 256;

/// The dimension of the k-th product of a score of AttentionMath::kBf16. It is no plain ascent, so
/// that the four lanes which share a key's products each read 8 dimensions that stand together: of
/// each 32, lane t has dimensions 8t ... 8t + 7 for two instructions, where it gives the inputs 2t,
/// 2t + 1, 2t + 8 and 2t + 9. Of 16 that are left at the end it has 4.
///
/// Example, head_dim 48: 0 1 8 9 16 17 24 25  2 3 10 11 18 19 26 27 are the first 16, then come the
/// same plus 4, then 32 33 36 37 40 41 44 45  34 35 38 39 42 43 46 47.
PACELINE_HOST_DEVICE constexpr int attention_dim(int head_dim, int k) {
  const int step = k / kTensorInputs;
  const int input = k % kTensorInputs;
  const int lane = input % 8 / 2;
  const int of_lane = input % 2 + input / 8 * 2;
  const int pair = step / 2 * 2 * kTensorInputs;
  if (pair + 2 * kTensorInputs > head_dim) return pair + 4 * lane + of_lane;
  return pair + 8 * lane + 4 * (step % 2) + of_lane;
}

}  // namespace paceline::kernels
