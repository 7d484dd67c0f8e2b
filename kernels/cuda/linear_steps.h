#pragma once

#include <cuda_runtime.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/cuda/block.h"
#include "kernels/cuda/intrinsics.h"
#include "kernels/cuda/linear_layout.h"

// What a warp does with one step of its panels: it adds the step's inputs to the sums of 16 outputs
// each for kTiles tiles of 8 rows. sums[panel][tile][i] of a lane is output lane / 4 + 8 * (i / 2)
// of the panel, row lane % 4 * 2 + i % 2 of the tile. What is read of a tile serves all panels.

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

/// Bytes from a panel's weights to the next one's, and from a tile's activations to the next.
struct StepStrides {
  int panel = 0;
  int tile = 0;
};

template <StepStrides kStrides, int kPanels, int kTiles>
__device__ void add_fp32(const std::byte* weights, const std::byte* rows,
                         float (&sums)[kPanels][kTiles][4]) {
  constexpr StepLayout kLayout = step_layout(WeightFormat::kFp32);
  constexpr int kRun = 4;
  const int output = lane_of_warp() / 4;
  PACELINE_UNROLL
  for (int first = 0; first < kLayout.inputs; first += kRun) {
    Floats4 weight[kPanels][2];
    PACELINE_UNROLL
    for (int i = 0; i < 2 * kPanels; ++i) {
      weight[i / 2][i % 2] =
          at<Floats4>(weights + i / 2 * kStrides.panel +
                      weight_offset(WeightFormat::kFp32, output + i % 2 * 8, first));
    }
    PACELINE_UNROLL
    for (int tile = 0; tile < kTiles; ++tile) {
      PACELINE_UNROLL
      for (int k = 0; k < kRun; ++k) {
        const Floats2 in =
            of_rows(rows + tile * kStrides.tile + row_offset(WeightFormat::kFp32, 0, first + k));
        PACELINE_UNROLL
        for (int i = 0; i < 4 * kPanels; ++i) {
          float& sum = sums[i / 4][tile][i % 4];
          sum = std::fma(in.value[i % 2], weight[i / 4][i % 4 / 2].value[k], sum);
        }
      }
    }
  }
}

template <WeightFormat kFormat, StepStrides kStrides, int kPanels, int kTiles>
__device__ void add_halves(const std::byte* weights, const std::byte* rows,
                           float (&sums)[kPanels][kTiles][4]) {
  Words4 weight[kPanels];
  PACELINE_UNROLL
  for (int panel = 0; panel < kPanels; ++panel) {
    weight[panel] = at<Words4>(weights + panel * kStrides.panel + lane_of_warp() * sizeof(Words4));
  }
  PACELINE_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    const auto in = at<Words2>(rows + tile * kStrides.tile + lane_of_warp() * sizeof(Words2));
    PACELINE_UNROLL
    for (int panel = 0; panel < kPanels; ++panel) {
      if constexpr (kFormat == WeightFormat::kBf16) {
        multiply_bf16(sums[panel][tile], weight[panel], in);
      } else {
        multiply_fp16(sums[panel][tile], weight[panel], in);
      }
    }
  }
}

template <StepStrides kStrides, int kPanels, int kTiles>
__device__ void add_fp8(const std::byte* weights, const std::byte* rows,
                        float (&sums)[kPanels][kTiles][4]) {
  constexpr int kFragments = 2;
  Words4 weight[kPanels][kFragments];
  PACELINE_UNROLL
  for (int panel = 0; panel < kPanels; ++panel) {
    const auto codes =
        at<Words4>(weights + panel * kStrides.panel + lane_of_warp() * sizeof(Words4));
    PACELINE_UNROLL
    for (int i = 0; i < 4 * kFragments; ++i) {
      weight[panel][i / 4].word[i % 4] = widen_fp8x2(codes.word[i / 2] >> (i % 2 * 16) & 0xffffu);
    }
  }
  PACELINE_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    PACELINE_UNROLL
    for (int f = 0; f < kFragments; ++f) {
      const auto in = at<Words2>(rows + tile * kStrides.tile +
                                 (f * kWarpThreads + lane_of_warp()) * sizeof(Words2));
      PACELINE_UNROLL
      for (int panel = 0; panel < kPanels; ++panel) {
        multiply_fp16(sums[panel][tile], weight[panel][f], in);
      }
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

template <WeightFormat kFormat, StepStrides kStrides, int kPanels, int kTiles>
__device__ void add_integers(const std::byte* weights, const std::byte* rows,
                             float (&sums)[kPanels][kTiles][4]) {
  constexpr StepLayout kLayout = step_layout(kFormat);
  constexpr int kFragments = kLayout.inputs / 32;
  constexpr bool kIsGrouped = kFormat != WeightFormat::kInt8Channel;
  Words4 weight[kPanels][kFragments];
  [[maybe_unused]] Floats2 scale[kPanels];
  [[maybe_unused]] Floats2 minimum[kPanels];
  PACELINE_UNROLL
  for (int panel = 0; panel < kPanels; ++panel) {
    const std::byte* of_panel = weights + panel * kStrides.panel;
    PACELINE_UNROLL
    for (int f = 0; f < kFragments; ++f) weight[panel][f] = int8_fragment<kFormat>(of_panel, f);
    if constexpr (kIsGrouped) scale[panel] = of_outputs(of_panel + kLayout.values);
    if constexpr (kFormat == WeightFormat::kInt4Group) {
      minimum[panel] = of_outputs(of_panel + kLayout.values + kPanel * 2);
    }
  }
  PACELINE_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    const std::byte* in = rows + tile * kStrides.tile;
    std::int32_t dot[kPanels][4];
    PACELINE_UNROLL
    for (int i = 0; i < 4 * kPanels; ++i) dot[i / 4][i % 4] = kOffsetBits;
    PACELINE_UNROLL
    for (int f = 0; f < kFragments; ++f) {
      const auto inputs = at<Words2>(in + (f * kWarpThreads + lane_of_warp()) * sizeof(Words2));
      PACELINE_UNROLL
      for (int panel = 0; panel < kPanels; ++panel) {
        multiply_int8(dot[panel], weight[panel][f], inputs);
      }
    }
    const Floats2 in_scale = of_rows(in + kLayout.row_values);
    PACELINE_UNROLL
    for (int i = 0; i < 4 * kPanels; ++i) {
      const int panel = i / 4, at_sum = i % 4;
      float& sum = sums[panel][tile][at_sum];
      const float exact_dot = std::bit_cast<float>(dot[panel][at_sum]) - kOffset;
      const float row_scale = in_scale.value[i % 2];
      sum = std::fma(exact_dot, kIsGrouped ? row_scale * scale[panel].value[at_sum / 2] : row_scale,
                     sum);
      if constexpr (kFormat == WeightFormat::kInt4Group) {
        const Floats2 in_sum = of_rows(in + kLayout.row_values + kTileRows * sizeof(float));
        sum = std::fma(in_sum.value[i % 2], minimum[panel].value[at_sum / 2], sum);
      }
    }
  }
}

template <WeightFormat kFormat, StepStrides kStrides, int kPanels, int kTiles>
__device__ void add_step(const std::byte* weights, const std::byte* rows,
                         float (&sums)[kPanels][kTiles][4]) {
  if constexpr (kFormat == WeightFormat::kFp32) {
    add_fp32<kStrides>(weights, rows, sums);
  } else if constexpr (kFormat == WeightFormat::kFp8) {
    add_fp8<kStrides>(weights, rows, sums);
  } else if constexpr (activation_group(kFormat) == 0) {
    add_halves<kFormat, kStrides>(weights, rows, sums);
  } else {
    add_integers<kFormat, kStrides>(weights, rows, sums);
  }
}

}  // namespace paceline::kernels::cuda
