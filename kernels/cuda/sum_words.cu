#include <cstdint>

#include "kernels/cuda/block.h"
#include "kernels/cuda/elements.h"
#include "kernels/cuda/intrinsics.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ops.h"

namespace paceline::kernels::cuda {
namespace {

__global__ void clear_sum_kernel(std::uint64_t* sum) {
  join_stream();
  *sum = 0;
}

__global__ void add_words_kernel(const SumWordsParams params) {
  join_stream();
  static_assert(sizeof(unsigned long long) == sizeof(std::uint64_t));
  std::uint64_t sum = 0;
  for (std::int64_t i = first_element(); i < params.count; i += element_step()) {
    sum += params.words[i];
  }
  sum = reduce_block(sum, [](std::uint64_t a, std::uint64_t b) { return a + b; });
  if (threadIdx.x == 0) {
    atomicAdd(reinterpret_cast<unsigned long long*>(params.sum),
              static_cast<unsigned long long>(sum));
  }
}

}  // namespace

void sum_words(const SumWordsParams& params, cudaStream_t stream) {
  launch("sum_words", {1, 1}, stream, clear_sum_kernel, params.sum);
  launch("sum_words", shape_of_elements(params.count), stream, add_words_kernel, params);
}

}  // namespace paceline::kernels::cuda
