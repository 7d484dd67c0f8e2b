#pragma once

#include <cuda_runtime.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/cuda/block.h"
#include "kernels/params.h"

// A row's tokens in the order of kernels/core/sampling.h: by t, descending, ties to the lower id;
// found by a whole block. t is a function of the token, at most 0, never -0 and never NaN.

namespace paceline::kernels::cuda {

/// Ascends as t descends.
__device__ inline std::uint32_t order_bits(float t) {
  return std::bit_cast<std::uint32_t>(t) & 0x7fffffffu;
}

/// The last token of a prefix of the order. As it begins: of the whole row.
struct PrefixEnd {
  std::uint32_t bits = 0xffffffffu;  // order_bits of its t
  std::int32_t id = std::numeric_limits<std::int32_t>::max();

  __device__ bool keeps(float t, std::int64_t token) const {
    return order_bits(t) < bits || (order_bits(t) == bits && token <= id);
  }
};

/// The largest of the logits, for every thread.
__device__ inline LargestLogit find_largest(const float* logits, std::int64_t vocab) {
  LargestLogit found;
  if (vocab == 0) return found;
  // The logit's order above (+ 0: both zeros are equal), the reversed id below.
  std::uint64_t largest = 0;
  int any_not_finite = 0;
  for (std::int64_t id = threadIdx.x; id < vocab; id += blockDim.x) {
    if (!std::isfinite(logits[id])) any_not_finite = 1;
    const auto bits = std::bit_cast<std::uint32_t>(logits[id] + 0.0f);
    const std::uint32_t ascending = (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
    const std::uint64_t key = std::uint64_t{ascending} << 32 | ~static_cast<std::uint32_t>(id);
    largest = key > largest ? key : largest;
  }
  found.all_finite = __syncthreads_or(any_not_finite) == 0 ? 1 : 0;
  if (found.all_finite == 0) return found;
  largest = reduce_block(largest, [](std::uint64_t a, std::uint64_t b) { return a > b ? a : b; });
  found.id = static_cast<std::int32_t>(~static_cast<std::uint32_t>(largest));
  found.logit = logits[found.id];
  return found;
}

/// order_bits are searched 11 bits at a time, by a block whose threads divide the digits evenly.
inline constexpr int kDigitBits = 11;
inline constexpr int kDigits = 1 << kDigitBits;

/// In which of the bins the prefix ends: the first, counting the `before` of earlier ones, by which
/// there is enough. `before` becomes the sum of all bins before it. Of no use if there is none.
template <typename Enough>
__device__ std::uint32_t find_digit(const unsigned long long* bins, const Enough& enough,
                                    std::uint64_t& before) {
  __shared__ std::uint32_t digit;
  __shared__ std::uint64_t before_digit;
  const int bins_each = kDigits / static_cast<int>(blockDim.x);
  const int first = static_cast<int>(threadIdx.x) * bins_each;
  std::uint64_t own = 0;
  for (int i = first; i < first + bins_each; ++i) own += bins[i];
  std::uint64_t sum = before + sum_before(own);
  for (int i = first; i < first + bins_each; ++i) {
    const std::uint64_t through = sum + bins[i];
    // The first token is in every prefix, whatever is enough; its bin is never zero.
    if (bins[i] > 0 && enough(through) && (sum == 0 || !enough(sum))) {
      digit = static_cast<std::uint32_t>(i);
      before_digit = sum;
    }
    sum = through;
  }
  __syncthreads();
  before = before_digit;
  return digit;  // written again only after a barrier of sum_before
}

/// The id of the n-th token, from 1, that has these order bits.
template <typename TokenValue>
__device__ std::int32_t find_id(const TokenValue& t_of, std::int64_t vocab, std::uint32_t bits,
                                std::uint64_t n) {
  __shared__ std::int32_t found;
  std::uint64_t seen = 0;
  for (std::int64_t first = 0; seen < n && first < vocab; first += blockDim.x) {
    const std::int64_t id = first + threadIdx.x;
    const bool has = id < vocab && order_bits(t_of(id)) == bits;
    const std::uint64_t earlier = sum_before(has ? 1 : 0);
    if (has && seen + earlier + 1 == n) found = static_cast<std::int32_t>(id);
    seen += static_cast<std::uint64_t>(__syncthreads_count(has ? 1 : 0));
  }
  return found;
}

/// Where the shortest prefix ends whose measures (a positive one for the first token, equal for
/// equal t) sum to `enough`. That must hold of a sum if of a smaller one, and of the whole row's.
/// bins: shared memory [kDigits].
template <typename TokenValue, typename Measure, typename Enough>
__device__ PrefixEnd find_prefix_end(const TokenValue& t_of, std::int64_t vocab,
                                     unsigned long long* bins, const Measure& measure,
                                     const Enough& enough) {
  std::uint32_t bits = 0;    // of the end's t, those found so far
  std::uint64_t before = 0;  // measured in front of all tokens with these bits
  for (int shift = 2 * kDigitBits; shift >= 0; shift -= kDigitBits) {
    for (int i = static_cast<int>(threadIdx.x); i < kDigits; i += static_cast<int>(blockDim.x)) {
      bins[i] = 0;
    }
    __syncthreads();
    for (std::int64_t id = threadIdx.x; id < vocab; id += blockDim.x) {
      const float t = t_of(id);
      const std::uint32_t high = order_bits(t) >> shift;
      if (high >> kDigitBits != bits) continue;
      atomicAdd(&bins[high % kDigits], static_cast<unsigned long long>(measure(t)));
    }
    __syncthreads();
    bits = bits << kDigitBits | find_digit(bins, enough, before);
  }
  // Of the tokens with this very t as many as are needed, the lower ids first.
  const std::uint64_t each = measure(std::bit_cast<float>(bits == 0 ? 0u : bits | 0x80000000u));
  const std::uint64_t count = bins[bits % kDigits] / each;
  __syncthreads();
  std::uint64_t needed = 1;
  for (std::uint64_t most = count; needed < most;) {
    const std::uint64_t middle = needed + (most - needed) / 2;
    if (enough(before + middle * each)) {
      most = middle;
    } else {
      needed = middle + 1;
    }
  }
  PrefixEnd end;
  end.bits = bits;
  if (needed < count) end.id = find_id(t_of, vocab, bits, needed);
  return end;
}

/// The prefix of the first k tokens.
struct CountTokens {
  __device__ std::uint64_t operator()(float) const { return 1; }
};
struct AtLeast {
  std::uint64_t k;
  __device__ bool operator()(std::uint64_t count) const { return count >= k; }
};

}  // namespace paceline::kernels::cuda
