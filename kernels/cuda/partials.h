#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <span>
#include <string>

#include "kernels/core/reduction.h"
#include "kernels/cuda/intrinsics.h"
#include "kernels/cuda/launch.h"

namespace paceline::kernels::cuda {

/// SumPartialsParams::merges, which stand in host memory, as a kernel's argument. There is at most
/// one partial for each virtual shard.
struct Merges {
  static constexpr int kMost = kMaxReductionDepth;
  int count = 0;
  std::uint8_t after[kMost] = {};  // each partial
};

inline Merges merges_of(std::span<const int> merges) {
  check_merges(merges);
  if (merges.size() > Merges::kMost) {
    fail("sum_partials: " + std::to_string(merges.size()) + " partials, expected at most " +
         std::to_string(Merges::kMost));
  }
  Merges argument;
  for (const int merge : merges) {
    argument.after[argument.count++] = static_cast<std::uint8_t>(merge);
  }
  return argument;
}

/// Adds the `count` partial sums of some elements, which stand `stride` apart, as Reduction of
/// kernels/params.h says: merges_after(p) merges after partial p. What stays of element e is given
/// to take(e, stack, depth).
template <int kElements, typename MergesAfter, typename Take>
__device__ void add_partials(const float* const (&partials)[kElements], std::int64_t stride,
                             int count, const MergesAfter& merges_after, const Take& take) {
  constexpr int kAhead = 8;  // of an element's loads on their way at the same time
  float loaded[kElements][kAhead] = {};
  PACELINE_UNROLL
  for (int p = 0; p < kAhead; ++p) {
    PACELINE_UNROLL
    for (int e = 0; e < kElements; ++e) {
      if (p < count) loaded[e][p] = partials[e][p * stride];
    }
  }
  PACELINE_UNROLL
  for (int e = 0; e < kElements; ++e) {
    float stack[kMaxReductionDepth];
    int depth = 0;
    const auto push = [&](int p, float top) {
      for (int merge = 0; merge < merges_after(p); ++merge) top = stack[--depth] + top;
      stack[depth++] = top;
    };
    PACELINE_UNROLL
    for (int p = 0; p < kAhead; ++p) {
      if (p < count) push(p, loaded[e][p]);
    }
    for (int p = kAhead; p < count; ++p) push(p, partials[e][p * stride]);
    take(e, stack, depth);
  }
}

}  // namespace paceline::kernels::cuda
