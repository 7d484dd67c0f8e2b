#include <array>
#include <cstdint>

#include "kernels/core/sampling.h"
#include "kernels/cuda/block.h"
#include "kernels/cuda/elements.h"
#include "kernels/cuda/intrinsics.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/token_order.h"

// One block for each row.

namespace paceline::kernels::cuda {
namespace {

constexpr int kThreads = 512;

struct ScaledLogits {
  const float* logits;
  float max;
  float temperature;
  __device__ float operator()(std::int64_t id) const {
    return scaled_logit(logits[id], max, temperature);
  }
};

struct NucleusWeight {
  __device__ std::uint64_t operator()(float t) const { return nucleus_weight(t); }
};

struct ReachesNucleus {
  std::uint64_t total;
  float top_p;
  __device__ bool operator()(std::uint64_t prefix) const {
    return reaches_nucleus(prefix, total, top_p);
  }
};

/// Steps 4 and 5 of kernels/core/sampling.h: both limits keep a prefix.
__device__ PrefixEnd find_kept(const ScaledLogits& t, std::int64_t vocab,
                               const SamplingRow& sampling) {
  __shared__ unsigned long long bins[kDigits];
  PrefixEnd end;
  if (sampling.top_k > 0 && sampling.top_k < vocab) {
    end = find_prefix_end(t, vocab, bins, CountTokens{},
                          AtLeast{static_cast<std::uint64_t>(sampling.top_k)});
  }
  if (!(sampling.top_p < 1)) return end;
  std::uint64_t total = 0;
  for (std::int64_t id = threadIdx.x; id < vocab; id += blockDim.x) {
    if (end.keeps(t(id), id)) total += nucleus_weight(t(id));
  }
  total = reduce_block(total, [](std::uint64_t a, std::uint64_t b) { return a + b; });
  return find_prefix_end(t, vocab, bins, NucleusWeight{}, ReachesNucleus{total, sampling.top_p});
}

/// Step 6. `top` is the largest logit, whose t is 0.
__device__ std::int32_t noisy_best(const ScaledLogits& t, std::int64_t vocab,
                                   const SamplingRow& sampling, const PrefixEnd& end,
                                   std::int32_t top) {
  // A kept token whose t is 0. (At a temperature so high that others' t rounds to 0 as well, the
  // largest logit can be cut off by lower ids.)
  std::int32_t best_id = end.keeps(0.0f, top) ? top : end.id;
  double best = sampling_noise(sampling, static_cast<std::uint32_t>(best_id));
  const double most_noise = gumbel(0xffffffffu);
  for (std::int64_t group = threadIdx.x; group * 4 < vocab; group += blockDim.x) {
    std::array<std::uint32_t, 4> numbers{};
    bool drawn = false;
    for (int i = 0; i < 4 && group * 4 + i < vocab; ++i) {
      const auto id = static_cast<std::int32_t>(group * 4 + i);
      const float scaled = t(id);
      // What cannot win needs no noise.
      if (!end.keeps(scaled, id) || static_cast<double>(scaled) + most_noise < best) continue;
      if (!drawn) numbers = sampling_numbers(sampling, static_cast<std::uint32_t>(group));
      drawn = true;
      const double score = static_cast<double>(scaled) + gumbel(numbers[i]);
      if (score > best || (score == best && id < best_id)) {
        best = score;
        best_id = id;
      }
    }
  }
  const double highest = reduce_block(best, [](double a, double b) { return a > b ? a : b; });
  return reduce_block(best == highest ? best_id : std::numeric_limits<std::int32_t>::max(),
                      [](std::int32_t a, std::int32_t b) { return a < b ? a : b; });
}

__device__ std::int32_t select(const float* logits, std::int64_t vocab,
                               const SamplingRow& sampling) {
  const LargestLogit top = find_largest(logits, vocab);
  if (top.all_finite == 0) return -1;
  if (vocab == 0 || !(sampling.temperature > 0)) return top.id;
  const ScaledLogits t{logits, top.logit, sampling.temperature};
  return noisy_best(t, vocab, sampling, find_kept(t, vocab, sampling), top.id);
}

__global__ void __launch_bounds__(kThreads) select_tokens_kernel(const SelectTokensParams params) {
  join_stream();
  const std::int64_t row = blockIdx.x;
  const std::int32_t token =
      select(params.logits + row * params.vocab, params.vocab, params.sampling[row]);
  if (threadIdx.x == 0) params.tokens[row] = token;
}

__global__ void __launch_bounds__(kThreads)
    largest_logits_kernel(const LargestLogitsParams params) {
  join_stream();
  const std::int64_t row = blockIdx.x;
  const LargestLogit found = find_largest(params.logits + row * params.vocab, params.vocab);
  if (threadIdx.x == 0) params.largest[row] = found;
}

__global__ void merge_largest_kernel(const MergeLargestParams params) {
  join_stream();
  for (std::int64_t row = first_element(); row < params.rows; row += element_step()) {
    params.tokens[row] = largest_of_parts(params, row);
  }
}

}  // namespace

void select_tokens(const SelectTokensParams& params, cudaStream_t stream) {
  launch("select_tokens", {params.rows, kThreads}, stream, select_tokens_kernel, params);
}

void largest_logits(const LargestLogitsParams& params, cudaStream_t stream) {
  launch("largest_logits", {params.rows, kThreads}, stream, largest_logits_kernel, params);
}

void merge_largest(const MergeLargestParams& params, cudaStream_t stream) {
  launch("merge_largest", shape_of_elements(params.rows), stream, merge_largest_kernel, params);
}

}  // namespace paceline::kernels::cuda
