#pragma once

#include <cuda_runtime.h>

// What a kernel can say to nvcc only, each with what it means elsewhere: the one place where the
// sources of the two builds differ.

// Before a loop of few, constant rounds whose arrays are to stay in registers.
#if defined(__CUDACC__)
#define PACELINE_UNROLL _Pragma("unroll")
#else
#define PACELINE_UNROLL
#endif

namespace paceline::kernels::cuda {

/// The block's shared memory of LaunchShape::shared_bytes, 16-byte aligned, not initialized.
template <typename T>
__device__ inline T* dynamic_shared() {
#if defined(__CUDACC__)
  extern __shared__ __align__(16) unsigned char memory[];
  return reinterpret_cast<T*>(memory);
#else
  return reinterpret_cast<T*>(simt_dynamic_shared());
#endif
}

}  // namespace paceline::kernels::cuda
