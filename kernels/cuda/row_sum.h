#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/core/lanes.h"
#include "kernels/cuda/block.h"
#include "kernels/cuda/intrinsics.h"
#include "kernels/cuda/launch.h"

// Sums of a row by the block that has it. A block's dynamic shared memory is the row's, at most a
// chunk of it at a time.

namespace paceline::kernels::cuda {

/// Elements of a chunk, whole steps of the lanes.
template <typename T>
inline constexpr std::int64_t kRowChunk = 32 * 1024 / sizeof(T);

/// A block for each row.
template <typename T>
LaunchShape shape_of_rows(std::int64_t rows, std::int64_t width, int threads) {
  return {rows, threads, static_cast<std::size_t>(std::min(kRowChunk<T>, width)) * sizeof(T)};
}

/// lane = add(lane, element) for every 16th element of a chunk, ascending, from this thread's on.
template <typename T, typename Add>
__device__ T add_lane(T lane, const T* chunk, std::int64_t size, const Add& add) {
  constexpr int kRun = 16;  // loads that go ahead of the chain
  std::int64_t i = threadIdx.x;
  for (; i + (kRun - 1) * kLanes < size; i += kRun * kLanes) {
    T run[kRun];
    PACELINE_UNROLL
    for (int j = 0; j < kRun; ++j) run[j] = chunk[i + j * kLanes];
    PACELINE_UNROLL
    for (int j = 0; j < kRun; ++j) lane = add(lane, run[j]);
  }
  for (; i < size; i += kLanes) lane = add(lane, chunk[i]);
  return lane;
}

/// The sum of a row in 16 lanes, for thread 0. All threads prepare the elements (`load`) of a
/// chunk, of which the first 16 then add up (`add`) one lane each. The last chunk stays in shared
/// memory.
template <typename T, typename Load, typename Add>
__device__ T sum_row(std::int64_t width, const Load& load, const Add& add) {
  constexpr int kAhead = 4;  // of a thread's loads at the same time
  T* chunk = dynamic_shared<T>();
  T lane = 0;
  for (std::int64_t first = 0; first < width; first += kRowChunk<T>) {
    const std::int64_t size = width - first < kRowChunk<T> ? width - first : kRowChunk<T>;
    if (first > 0) __syncthreads();  // the lanes are done with the chunk before
    for (std::int64_t i = threadIdx.x; i < size; i += kAhead * std::int64_t{blockDim.x}) {
      T loaded[kAhead] = {};
      PACELINE_UNROLL
      for (int j = 0; j < kAhead; ++j) {
        const std::int64_t at = i + j * std::int64_t{blockDim.x};
        if (at < size) loaded[j] = load(first + at);
      }
      PACELINE_UNROLL
      for (int j = 0; j < kAhead; ++j) {
        const std::int64_t at = i + j * std::int64_t{blockDim.x};
        if (at < size) chunk[at] = loaded[j];
      }
    }
    __syncthreads();
    if (threadIdx.x < kLanes) lane = add_lane(lane, chunk, size, add);
  }
  return threadIdx.x < kLanes ? sum_lanes_of_threads(lane) : T{0};
}

/// 1 / sqrt(sum(row^2) / width + eps), for every thread.
__device__ inline float rms_norm_scale(const float* row, std::int64_t width, float eps) {
  __shared__ float scale;
  const float sum = sum_row<float>(
      width, [&](std::int64_t i) { return row[i]; },
      [](float lane, float x) { return std::fma(x, x, lane); });
  if (threadIdx.x == 0) scale = 1.0f / std::sqrt(sum / static_cast<float>(width) + eps);
  __syncthreads();
  return scale;
}

}  // namespace paceline::kernels::cuda
