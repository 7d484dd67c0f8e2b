#include "kernels/cuda/block.h"

#include <gtest/gtest.h>
#include <test_device.h>

#include <vector>

#include "kernels/cuda/intrinsics.h"
#include "kernels/cuda/launch.h"

namespace paceline::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kRounds = 20;
constexpr unsigned kBlocks = 30;

// Each round's values differ, so that what is left of an earlier one, or comes from a later one,
// shows.
__host__ __device__ std::uint64_t value_of(int round, int thread) {
  return static_cast<std::uint64_t>(round * 1000 + thread);
}

struct Sum {
  __device__ std::uint64_t operator()(std::uint64_t a, std::uint64_t b) const { return a + b; }
};

__global__ void reduce_again_and_again(std::uint64_t* out) {
  join_stream();
  const auto thread = static_cast<int>(threadIdx.x);
  for (int round = 0; round < kRounds; ++round) {
    out[round * kThreads + thread] = reduce_block(value_of(round, thread), Sum{});
  }
}

__global__ void sum_again_and_again(std::uint64_t* out) {
  join_stream();
  const auto thread = static_cast<int>(threadIdx.x);
  for (int round = 0; round < kRounds; ++round) {
    out[round * kThreads + thread] = sum_before(value_of(round, thread));
  }
}

// Every block writes its part, the last to come adds all up.
__global__ void sum_by_last_block(std::uint64_t* parts, unsigned* arrived, std::uint64_t* sum) {
  join_stream();
  parts[blockIdx.x * blockDim.x + threadIdx.x] = value_of(static_cast<int>(blockIdx.x), 1);
  if (!is_last_of_blocks(arrived, gridDim.x) || threadIdx.x > 0) return;
  for (unsigned i = 0; i < gridDim.x * blockDim.x; ++i) *sum += parts[i];
}

TEST(CudaBlock, TheLastSeesWhatAllWrote) {
  in_every_order([] {
    std::vector<std::uint64_t> parts(kBlocks * kThreads), sum(1);
    std::vector<unsigned> arrived(1);
    launch("sum", {kBlocks, kThreads}, nullptr, sum_by_last_block, parts.data(), arrived.data(),
           sum.data());
    EXPECT_EQ(sum[0], std::uint64_t{kThreads} * (1000 * kBlocks * (kBlocks - 1) / 2 + kBlocks));
    EXPECT_EQ(arrived[0], kBlocks);
  });
}

TEST(CudaBlock, ReducesForEveryThread) {
  in_every_order([] {
    std::vector<std::uint64_t> out(kRounds * kThreads);
    launch("reduce", {1, kThreads}, nullptr, reduce_again_and_again, out.data());
    for (int round = 0; round < kRounds; ++round) {
      const std::uint64_t sum = round * 1000 * kThreads + kThreads * (kThreads - 1) / 2;
      for (int thread = 0; thread < kThreads; ++thread) {
        EXPECT_EQ(out[round * kThreads + thread], sum);
      }
    }
  });
}

TEST(CudaBlock, SumsTheThreadsBefore) {
  in_every_order([] {
    std::vector<std::uint64_t> out(kRounds * kThreads);
    launch("sum", {1, kThreads}, nullptr, sum_again_and_again, out.data());
    for (int round = 0; round < kRounds; ++round) {
      std::uint64_t sum = 0;
      for (int thread = 0; thread < kThreads; ++thread) {
        EXPECT_EQ(out[round * kThreads + thread], sum);
        sum += value_of(round, thread);
      }
    }
  });
}

}  // namespace
}  // namespace paceline::kernels::cuda
