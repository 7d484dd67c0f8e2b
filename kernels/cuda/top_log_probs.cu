#include <cstdint>
#include <string>

#include "kernels/core/exact_math.h"
#include "kernels/cuda/intrinsics.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/token_order.h"

namespace paceline::kernels::cuda {
namespace {

constexpr int kThreads = 512;

/// (logit - the largest) + 0.
struct ShiftedLogits {
  const float* logits;
  float max;
  __device__ float operator()(std::int64_t id) const { return (logits[id] - max) + 0.0f; }
};

struct Token {
  float z;
  std::int32_t id;
};

/// Sorts kept[0..count) to best, by one thread for each.
__device__ void sort_tokens(const Token* kept, int count, Token* best) {
  const int own = static_cast<int>(threadIdx.x);
  if (own < count) {
    const Token token = kept[own];
    int rank = 0;
    for (int i = 0; i < count; ++i) {
      if (kept[i].z > token.z || (kept[i].z == token.z && kept[i].id < token.id)) ++rank;
    }
    best[rank] = token;
  }
  __syncthreads();
}

/// The log of the sum of exp(z), added in the tokens' order.
__device__ double log_sum_of(const Token* best, int count) {
  __shared__ double terms[kMaxTopLogProbs];
  __shared__ double log_sum;
  const int own = static_cast<int>(threadIdx.x);
  if (own < count) terms[own] = exact::exp(static_cast<double>(best[own].z));
  __syncthreads();
  if (own == 0) {
    double sum = 0;
    for (int i = 0; i < count; ++i) sum += terms[i];
    log_sum = exact::log(sum);
  }
  __syncthreads();
  return log_sum;
}

// One block for each row.
__global__ void __launch_bounds__(kThreads) top_log_probs_kernel(const TopLogProbsParams params) {
  join_stream();
  __shared__ unsigned long long bins[kDigits];
  __shared__ Token kept[kMaxTopLogProbs];
  __shared__ Token best[kMaxTopLogProbs];
  __shared__ int count;
  const std::int64_t row = blockIdx.x;
  const float* logits = params.logits + row * params.vocab;
  const LargestLogit top = find_largest(logits, params.vocab);
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  if (params.vocab > 0 && top.all_finite != 0) {  // the same for every thread
    const ShiftedLogits z_of{logits, top.logit};
    PrefixEnd end;
    if (params.k < params.vocab) {
      end = find_prefix_end(z_of, params.vocab, bins, CountTokens{},
                            AtLeast{static_cast<std::uint64_t>(params.k)});
    }
    for (std::int64_t id = threadIdx.x; id < params.vocab; id += blockDim.x) {
      const float z = z_of(id);
      if (end.keeps(z, id)) kept[atomicAdd(&count, 1)] = {z, static_cast<std::int32_t>(id)};
    }
    __syncthreads();
    sort_tokens(kept, count, best);
    const double log_sum = log_sum_of(best, count);
    const int own = static_cast<int>(threadIdx.x);
    if (own < count) {
      params.ids[row * params.k + own] = best[own].id;
      params.log_probs[row * params.k + own] =
          static_cast<float>(static_cast<double>(best[own].z) - log_sum);
    }
  }
  if (threadIdx.x == 0) params.counts[row] = count;
}

}  // namespace

void top_log_probs(const TopLogProbsParams& params, cudaStream_t stream) {
  static_assert(kMaxTopLogProbs <= kThreads);
  if (params.k <= 0 || params.k > kMaxTopLogProbs) {
    fail("top_log_probs: k is " + std::to_string(params.k) + ", expected 1 to " +
         std::to_string(kMaxTopLogProbs));
  }
  launch("top_log_probs", {params.rows, kThreads}, stream, top_log_probs_kernel, params);
}

}  // namespace paceline::kernels::cuda
