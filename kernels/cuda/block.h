#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/core/lanes.h"

// What the threads of a block compute together. All of them must call; blocks are one-dimensional
// and made of whole warps.

namespace paceline::kernels::cuda {

inline constexpr int kWarpThreads = 32;
inline constexpr int kMostWarps = 1024 / kWarpThreads;
inline constexpr unsigned kWholeWarp = 0xffffffffu;

__device__ inline int lane_of_warp() { return static_cast<int>(threadIdx.x) % kWarpThreads; }
__device__ inline int warp_of_block() { return static_cast<int>(threadIdx.x) / kWarpThreads; }
__device__ inline int warps_of_block() { return static_cast<int>(blockDim.x) / kWarpThreads; }

/// The values of a warp's threads combined, for each of them. `combine` must not mind the order.
template <typename T, typename Combine>
__device__ T reduce_warp(T value, const Combine& combine) {
  for (int half = kWarpThreads / 2; half > 0; half /= 2) {
    value = combine(value, __shfl_xor_sync(kWholeWarp, value, half));
  }
  return value;
}

/// Whether this block is the last of `count` to come here, the same for all its threads: it then
/// sees what all of them wrote before. *arrived, in the device's memory, begins as 0.
__device__ inline bool is_last_of_blocks(unsigned* arrived, unsigned count) {
  __shared__ bool is_last;
  __syncthreads();  // behind what this block's threads wrote
  if (threadIdx.x == 0) {
    __threadfence();
    is_last = atomicAdd(arrived, 1u) == count - 1;
    __threadfence();
  }
  __syncthreads();
  return is_last;
}

/// Every thread's value combined, for every thread. `combine` must not mind the order.
template <typename T, typename Combine>
__device__ T reduce_block(T value, const Combine& combine) {
  __shared__ T of_warp[kMostWarps];
  value = reduce_warp(value, combine);
  if (lane_of_warp() == 0) of_warp[warp_of_block()] = value;
  __syncthreads();
  T all = of_warp[0];
  for (int warp = 1; warp < warps_of_block(); ++warp) all = combine(all, of_warp[warp]);
  __syncthreads();
  return all;
}

/// The sum of the values of the threads before this one.
__device__ inline std::uint64_t sum_before(std::uint64_t value) {
  __shared__ std::uint64_t of_warp[kMostWarps];
  std::uint64_t through = value;
  for (int step = 1; step < kWarpThreads; step *= 2) {
    const std::uint64_t earlier = __shfl_up_sync(kWholeWarp, through, static_cast<unsigned>(step));
    if (lane_of_warp() >= step) through += earlier;
  }
  if (lane_of_warp() == kWarpThreads - 1) of_warp[warp_of_block()] = through;
  __syncthreads();
  std::uint64_t before = through - value;
  for (int warp = 0; warp < warp_of_block(); ++warp) before += of_warp[warp];
  __syncthreads();
  return before;
}

/// sum_lanes of kernels/core/lanes.h, the lanes held by a half of a warp, whose threads all call;
/// the sum is the half's first thread's. Without `half_warp`: those are threads 0 ... 15.
template <typename T>
__device__ T sum_lanes_of_threads(T lane, unsigned half_warp = (1u << kLanes) - 1) {
  for (int half = kLanes / 2; half > 0; half /= 2) {
    lane += __shfl_down_sync(half_warp, lane, static_cast<unsigned>(half), kLanes);
  }
  return lane;
}

}  // namespace paceline::kernels::cuda
