#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace paceline::kernels::cuda {

/// Adds `count` partial sums that stand `stride` apart, as Reduction of kernels/params.h says:
/// merges_after(p) merges after partial p. What stays is stack[0 ... depth); returns depth. The
/// stack has kMaxReductionDepth entries.
template <typename MergesAfter>
__device__ int add_partials(const float* partials, std::int64_t stride, int count,
                            const MergesAfter& merges_after, float* stack) {
  int depth = 0;
  for (int p = 0; p < count; ++p) {
    float top = partials[p * stride];
    for (int merge = 0; merge < merges_after(p); ++merge) top = stack[--depth] + top;
    stack[depth++] = top;
  }
  return depth;
}

}  // namespace paceline::kernels::cuda
