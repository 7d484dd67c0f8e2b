#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/device_matrix.h"

namespace paceline::kernels::cuda {

/// The input that stands at place `input` of a step, which has `inputs`; -1 where the segment has
/// ended.
__device__ inline std::int64_t col_of(const DeviceMatrixView& weight, std::int32_t step, int input,
                                      int inputs) {
  const DeviceSegment* segment = weight.segments;
  while (step >= segment->first_step + segment->steps) ++segment;
  const std::int64_t col = std::int64_t{step - segment->first_step} * inputs + input;
  return col < segment->cols ? segment->first_col + col : -1;
}

}  // namespace paceline::kernels::cuda
