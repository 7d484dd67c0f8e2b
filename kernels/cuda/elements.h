#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/launch.h"

namespace paceline::kernels::cuda {

/// For kernels that compute `count` elements apart from each other: a thread takes one, or every so
/// manieth where there are more than a GPU holds at a time.
inline LaunchShape shape_of_elements(std::int64_t count) {
  constexpr int kThreads = 256;
  constexpr std::int64_t kMostBlocks = 4096;
  return {std::min((count + kThreads - 1) / kThreads, kMostBlocks), kThreads};
}

/// In such a kernel: for (std::int64_t i = first_element(); i < count; i += element_step()).
__device__ inline std::int64_t first_element() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ inline std::int64_t element_step() {
  return static_cast<std::int64_t>(gridDim.x) * blockDim.x;
}

}  // namespace paceline::kernels::cuda
