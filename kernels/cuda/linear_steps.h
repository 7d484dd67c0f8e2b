#pragma once

#include <cuda_runtime.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/cuda/block.h"
#include "kernels/cuda/intrinsics.h"
#include "kernels/cuda/linear_layout.h"

// What a warp does with one step of a panel: it adds the step's inputs to the sums of 16 outputs
// for kTiles tiles of 8 rows each. sums[tile][i] of a lane is output lane / 4 + 8 * (i / 2) of the
// panel, row lane % 4 * 2 + i % 2 of the tile. The tiles' activations stand kTileStride bytes
// apart.

namespace paceline::kernels::cuda {

template <typename T>
__device__ const T& at(const std::byte* address) {
  return *reinterpret_cast<const T*>(address);
}

struct alignas(8) Floats2 {
  float value[2];
};
struct alignas(16) Floats4 {
  float value[4];
};

/// Two rows' values of a tile's scales or sums [8], those of this lane's sums.
__device__ inline Floats2 of_rows(const std::byte* floats) {
  return at<Floats2>(floats + lane_of_warp() % 4 * sizeof(Floats2));
}

/// Two outputs' values of a panel's fp16 scales or minimums [16], those of this lane's sums.
__device__ inline Floats2 of_outputs(const std::byte* halves) {
  const std::byte* low = halves + lane_of_warp() / 4 * 2;
  return {widen_fp16(at<std::uint16_t>(low)), widen_fp16(at<std::uint16_t>(low + kPanel))};
}

template <int kTileStride, int kTiles>
__device__ void add_fp32(const std::byte* weights, const std::byte* rows,
                         float (&sums)[kTiles][4]) {
  constexpr StepLayout kLayout = step_layout(WeightFormat::kFp32);
  constexpr int kRun = 4;
  const int output = lane_of_warp() / 4;
  PACELINE_UNROLL
  for (int first = 0; first < kLayout.inputs; first += kRun) {
    const Floats4 weight[2] = {
        at<Floats4>(weights + weight_offset(WeightFormat::kFp32, output, first)),
        at<Floats4>(weights + weight_offset(WeightFormat::kFp32, output + 8, first))};
    PACELINE_UNROLL
    for (int tile = 0; tile < kTiles; ++tile) {
      PACELINE_UNROLL
      for (int k = 0; k < kRun; ++k) {
        const Floats2 in =
            of_rows(rows + tile * kTileStride + row_offset(WeightFormat::kFp32, 0, first + k));
        PACELINE_UNROLL
        for (int i = 0; i < 4; ++i) {
          sums[tile][i] = std::fma(in.value[i % 2], weight[i / 2].value[k], sums[tile][i]);
        }
      }
    }
  }
}

template <WeightFormat kFormat, int kTileStride, int kTiles>
__device__ void add_halves(const std::byte* weights, const std::byte* rows,
                           float (&sums)[kTiles][4]) {
  const auto weight = at<Words4>(weights + lane_of_warp() * sizeof(Words4));
  PACELINE_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    const auto in = at<Words2>(rows + tile * kTileStride + lane_of_warp() * sizeof(Words2));
    if constexpr (kFormat == WeightFormat::kBf16) {
      multiply_bf16(sums[tile], weight, in);
    } else {
      multiply_fp16(sums[tile], weight, in);
    }
  }
}

template <int kTileStride, int kTiles>
__device__ void add_fp8(const std::byte* weights, const std::byte* rows, float (&sums)[kTiles][4]) {
  constexpr int kFragments = 2;
  const auto codes = at<Words4>(weights + lane_of_warp() * sizeof(Words4));
  Words4 weight[kFragments];
  PACELINE_UNROLL
  for (int i = 0; i < 4 * kFragments; ++i) {
    weight[i / 4].word[i % 4] = widen_fp8x2(codes.word[i / 2] >> (i % 2 * 16) & 0xffffu);
  }
  PACELINE_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    PACELINE_UNROLL
    for (int f = 0; f < kFragments; ++f) {
      multiply_fp16(sums[tile], weight[f],
                    at<Words2>(rows + tile * kTileStride +
                               (f * kWarpThreads + lane_of_warp()) * sizeof(Words2)));
    }
  }
}

/// A lane's part of a fragment of weights.
template <WeightFormat kFormat>
__device__ Words4 int8_fragment(const std::byte* weights, int fragment) {
  if constexpr (kFormat == WeightFormat::kInt4Group) {
    constexpr std::uint32_t kLowNibbles = 0x0f0f0f0fu;
    const auto pairs = at<Words2>(weights + lane_of_warp() * sizeof(Words2));
    return {{pairs.word[0] & kLowNibbles, pairs.word[0] >> 4 & kLowNibbles,
             pairs.word[1] & kLowNibbles, pairs.word[1] >> 4 & kLowNibbles}};
  } else {
    return at<Words4>(weights + (fragment * kWarpThreads + lane_of_warp()) * sizeof(Words4));
  }
}

// 1.5 * 2^23: for |x| <= 2^22 the bits of the float kOffset + x are kOffsetBits + x. A dot product
// that begins as kOffsetBits is so converted by one subtraction, which is exact; a group's is below
// 64 * 127 * 128 < 2^20.
inline constexpr float kOffset = 12582912.0f;
inline constexpr std::int32_t kOffsetBits = 0x4b400000;
static_assert(std::bit_cast<std::int32_t>(kOffset) == kOffsetBits);

template <WeightFormat kFormat, int kTileStride, int kTiles>
__device__ void add_integers(const std::byte* weights, const std::byte* rows,
                             float (&sums)[kTiles][4]) {
  constexpr StepLayout kLayout = step_layout(kFormat);
  constexpr int kFragments = kLayout.inputs / 32;
  constexpr bool kIsGrouped = kFormat != WeightFormat::kInt8Channel;
  Words4 weight[kFragments];
  PACELINE_UNROLL
  for (int f = 0; f < kFragments; ++f) weight[f] = int8_fragment<kFormat>(weights, f);
  [[maybe_unused]] Floats2 scale{};
  [[maybe_unused]] Floats2 minimum{};
  if constexpr (kIsGrouped) scale = of_outputs(weights + kLayout.values);
  if constexpr (kFormat == WeightFormat::kInt4Group) {
    minimum = of_outputs(weights + kLayout.values + kPanel * 2);
  }
  PACELINE_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    const std::byte* in = rows + tile * kTileStride;
    std::int32_t dot[4] = {kOffsetBits, kOffsetBits, kOffsetBits, kOffsetBits};
    PACELINE_UNROLL
    for (int f = 0; f < kFragments; ++f) {
      multiply_int8(dot, weight[f],
                    at<Words2>(in + (f * kWarpThreads + lane_of_warp()) * sizeof(Words2)));
    }
    const Floats2 in_scale = of_rows(in + kLayout.row_values);
    PACELINE_UNROLL
    for (int i = 0; i < 4; ++i) {
      float& sum = sums[tile][i];
      const float exact_dot = std::bit_cast<float>(dot[i]) - kOffset;
      const float row_scale = in_scale.value[i % 2];
      sum = std::fma(exact_dot, kIsGrouped ? row_scale * scale.value[i / 2] : row_scale, sum);
      if constexpr (kFormat == WeightFormat::kInt4Group) {
        const Floats2 in_sum = of_rows(in + kLayout.row_values + kTileRows * sizeof(float));
        sum = std::fma(in_sum.value[i % 2], minimum.value[i / 2], sum);
      }
    }
  }
}

template <WeightFormat kFormat, int kTileStride, int kTiles>
__device__ void add_step(const std::byte* weights, const std::byte* rows,
                         float (&sums)[kTiles][4]) {
  if constexpr (kFormat == WeightFormat::kFp32) {
    add_fp32<kTileStride>(weights, rows, sums);
  } else if constexpr (kFormat == WeightFormat::kFp8) {
    add_fp8<kTileStride>(weights, rows, sums);
  } else if constexpr (activation_group(kFormat) == 0) {
    add_halves<kFormat, kTileStride>(weights, rows, sums);
  } else {
    add_integers<kFormat, kTileStride>(weights, rows, sums);
  }
}

}  // namespace paceline::kernels::cuda
