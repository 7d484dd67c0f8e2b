#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/core/formats.h"

// How a product's operands lie in device memory: as the lanes of a warp want them for the tensor
// core's instructions (kernels/cuda/intrinsics.h), so that each reads 8 or 16 bytes of its own
// beside those of the next lane.
//
// Weights are cut into panels of 16 outputs, a panel into steps along the inputs; a warp reads its
// panel front to back. Activations are cut into tiles of 8 rows and into the same steps.

namespace paceline::kernels::cuda {

inline constexpr int kPanel = 16;
inline constexpr int kTileRows = 8;

/// One step, by format. A segment of the reduction begins with a step; the last one of a segment
/// may be filled up: with weights -0 and activations +0, whose product leaves every sum as it is.
///
/// format        inputs  weights                                 activations
/// kFp32              8  4 inputs of each output, the next 4     each row's first input, second ...
/// kBf16, kFp16      16  one fragment                            one, rounded to the format
/// kFp8              32  two fragments, a byte an element        two, fp16 of 1/16 of them
/// kInt8Channel      64  two fragments                           two; fp32 scales [8]
/// kInt8Group        32  one; fp16 scales [16]                   one; fp32 scales [8]
/// kInt4Group        32  one of nibbles; fp16 scales [16],       one; fp32 scales [8],
///                       fp16 minimums [16]                      scale * sum [8]
struct StepLayout {
  int inputs = 0;
  int values = 0;      // bytes of the weights without scales and minimums
  int bytes = 0;       // with them
  int row_values = 0;  // the same of a tile of activations
  int row_bytes = 0;
};

/// kFp8's activations are divided by it before they are rounded to fp16, its sums multiplied:
/// exact, and room for 16 times as large ones, up to a million.
inline constexpr float kFp8RowScale = 16.0f;

constexpr StepLayout step_layout(WeightFormat format) {
  constexpr int kHalves = kPanel * 2;     // a scale or minimum of each output
  constexpr int kFloats = kTileRows * 4;  // a scale or sum of each row
  switch (format) {
    case WeightFormat::kFp32:
      return {8, 512, 512, 256, 256};
    case WeightFormat::kBf16:
    case WeightFormat::kFp16:
      return {16, 512, 512, 256, 256};
    case WeightFormat::kFp8:
      return {32, 512, 512, 512, 512};
    case WeightFormat::kInt8Channel:
      return {64, 1024, 1024, 512, 512 + kFloats};
    case WeightFormat::kInt8Group:
      return {32, 512, 512 + kHalves, 256, 256 + kFloats};
    case WeightFormat::kInt4Group:
      return {32, 256, 256 + 2 * kHalves, 256, 256 + 2 * kFloats};
  }
  return {};
}

/// Where the weight of an output of the panel and an input of the step stands, in bytes. In
/// kInt4Group outputs 0 ... 7 have the low nibble, 8 ... 15 the high one.
constexpr int weight_offset(WeightFormat format, int output, int input) {
  const int low = output % 8;
  const int high = output / 8;
  switch (format) {
    case WeightFormat::kFp32:
      return (input / 4 * kPanel + output) * 16 + input % 4 * 4;
    case WeightFormat::kBf16:
    case WeightFormat::kFp16:
      return (low * 4 + input % 8 / 2) * 16 + (input / 8 * 2 + high) * 4 + input % 2 * 2;
    case WeightFormat::kFp8:
      return (low * 4 + input % 8 / 2) * 16 + input / 8 * 4 + high * 2 + input % 2;
    case WeightFormat::kInt8Channel:
    case WeightFormat::kInt8Group:
      return input / 32 * 512 + (low * 4 + input % 16 / 4) * 16 + (input % 32 / 16 * 2 + high) * 4 +
             input % 4;
    case WeightFormat::kInt4Group:
      return (low * 4 + input % 16 / 4) * 8 + input / 16 * 4 + input % 4;
  }
  return 0;
}

/// Where the activation of a row of the tile and an input of the step stands, in bytes.
constexpr int row_offset(WeightFormat format, int row, int input) {
  switch (format) {
    case WeightFormat::kFp32:
      return (input * kTileRows + row) * 4;
    case WeightFormat::kBf16:
    case WeightFormat::kFp16:
      return (row * 4 + input % 8 / 2) * 8 + input / 8 * 4 + input % 2 * 2;
    case WeightFormat::kFp8:
      return input / 16 * 256 + row_offset(WeightFormat::kFp16, row, input % 16);
    case WeightFormat::kInt8Channel:
    case WeightFormat::kInt8Group:
    case WeightFormat::kInt4Group:
      return input / 32 * 256 + (row * 4 + input % 16 / 4) * 8 + input % 32 / 16 * 4 + input % 4;
  }
  return 0;
}

}  // namespace paceline::kernels::cuda
