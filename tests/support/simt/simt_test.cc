#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "tests/support/simt/every_order.h"
#include "tests/support/simt/include/cuda_runtime.h"

namespace paceline::simt {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

template <typename... Parameters, typename... Arguments>
void launch(dim3 blocks, dim3 threads, std::size_t shared_bytes, void (*kernel)(Parameters...),
            Arguments... arguments) {
  const cudaLaunchConfig_t config{blocks, threads, shared_bytes, nullptr};
  ASSERT_EQ(cudaLaunchKernelEx(&config, kernel, arguments...), cudaSuccess);
}

/// The message of the Error that a kernel of one block ends with.
template <typename... Parameters, typename... Arguments>
std::string error_of(unsigned threads, void (*kernel)(Parameters...), Arguments... arguments) {
  try {
    launch(1, threads, 0, kernel, arguments...);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

__global__ void write_indices(unsigned* out) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] += block * 1000 + thread;
}

TEST(Simt, EveryThreadOfEveryBlockRunsOnce) {
  in_every_order([] {
    std::vector<unsigned> out(2 * 3 * 2 * 4 * 3 * 2);
    launch(dim3(2, 3, 2), dim3(4, 3, 2), 0, write_indices, out.data());
    for (unsigned i = 0; i < out.size(); ++i) EXPECT_EQ(out[i], i / 24 * 1000 + i % 24);
  });
}

// ---- barriers

__global__ void reverse(int* values) {
  __shared__ int all[96];
  all[threadIdx.x] = values[threadIdx.x];
  __syncthreads();
  values[threadIdx.x] = all[blockDim.x - 1 - threadIdx.x];
}

__global__ void reverse_without_barrier(int* values) {
  __shared__ int all[96];
  all[threadIdx.x] = values[threadIdx.x];
  values[threadIdx.x] = all[blockDim.x - 1 - threadIdx.x];
}

/// 1 ... 96 after a kernel, in each of several orders.
std::set<std::vector<int>> outcomes(void (*kernel)(int*)) {
  std::set<std::vector<int>> all;
  in_every_order([&] {
    std::vector<int> values(96);
    std::iota(values.begin(), values.end(), 1);
    launch(1, 96, 0, kernel, values.data());
    all.insert(values);
  });
  return all;
}

TEST(SimtBarrier, WhatWasWrittenBeforeIsReadAfter) {
  std::vector<int> reversed(96);
  std::iota(reversed.rbegin(), reversed.rend(), 1);
  EXPECT_THAT(outcomes(reverse), ElementsAre(reversed));
}

TEST(SimtBarrier, ARaceGivesOtherResultsInOtherOrders) {
  EXPECT_GT(outcomes(reverse_without_barrier).size(), 1u);
}

__global__ void block_votes(int limit, int* out) {
  const int yes = static_cast<int>(threadIdx.x) < limit;
  out[threadIdx.x] =
      __syncthreads_count(yes) * 4 + __syncthreads_or(yes) * 2 + __syncthreads_and(yes);
}

TEST(SimtBarrier, CountsVotes) {
  for (const int limit : {0, 1, 39, 40}) {
    std::vector<int> out(40);
    launch(1, 40, 0, block_votes, limit, out.data());
    EXPECT_THAT(out, Each(limit * 4 + (limit > 0 ? 2 : 0) + (limit == 40 ? 1 : 0)));
  }
}

__global__ void some_return_early(unsigned last) {
  if (threadIdx.x == last) return;
  __syncthreads();
}

__global__ void two_barriers(unsigned odd) {
  if (threadIdx.x == odd) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

TEST(SimtBarrier, OneThatNotAllReachIsAnError) {
  in_every_order([] {
    const std::string returned = error_of(40, some_return_early, 5u);
    EXPECT_THAT(returned, HasSubstr("thread (0, 0, 0) waits in __syncthreads at "));
    EXPECT_THAT(returned, HasSubstr("simt_test.cc:"));
    EXPECT_THAT(returned, HasSubstr("thread (5, 0, 0) has returned"));
    const std::string two = error_of(40, two_barriers, 7u);
    EXPECT_THAT(two, HasSubstr("thread (0, 0, 0) waits in __syncthreads at "));
    EXPECT_THAT(two, HasSubstr("but block (0, 0, 0), thread (7, 0, 0) waits in __syncthreads at "));
    EXPECT_EQ(error_of(40, some_return_early, 40u), "no error");  // and the next launch is well
  });
}

// ---- warps

__global__ void sum_warps(int* values) {
  int sum = values[threadIdx.x];
  for (int half = warpSize / 2; half > 0; half /= 2) sum += __shfl_xor_sync(~0u, sum, half);
  values[threadIdx.x] = sum;
}

TEST(SimtWarp, ShufflesSum) {
  in_every_order([] {
    std::vector<int> values(64);
    std::iota(values.begin(), values.end(), 0);
    launch(1, 64, 0, sum_warps, values.data());
    for (int i = 0; i < 64; ++i) EXPECT_EQ(values[i], i < 32 ? 31 * 16 : 31 * 16 + 32 * 32);
  });
}

// A lane whose source is outside of its group of 8 keeps its own value.
__global__ void shuffle_in_groups(int* down, int* up, int* from, double* wide) {
  const int lane = static_cast<int>(threadIdx.x);
  down[lane] = __shfl_down_sync(~0u, lane, 3, 8);
  up[lane] = __shfl_up_sync(~0u, lane, 3, 8);
  from[lane] = __shfl_sync(~0u, lane, 10, 8);
  wide[lane] = __shfl_sync(~0u, lane + 0.5, 31 - lane);
}

TEST(SimtWarp, ShufflesStayInTheirGroups) {
  in_every_order([] {
    std::vector<int> down(32), up(32), from(32);
    std::vector<double> wide(32);
    launch(1, 32, 0, shuffle_in_groups, down.data(), up.data(), from.data(), wide.data());
    for (int lane = 0; lane < 32; ++lane) {
      EXPECT_EQ(down[lane], lane % 8 < 5 ? lane + 3 : lane);
      EXPECT_EQ(up[lane], lane % 8 < 3 ? lane : lane - 3);
      EXPECT_EQ(from[lane], lane / 8 * 8 + 2);
      EXPECT_EQ(wide[lane], 31.5 - lane);
    }
  });
}

// The last warp has 8 threads; its lanes 0 ... 3 and 4 ... 7 shuffle apart from each other.
__global__ void halves_of_a_short_warp(int* out) {
  const int lane = static_cast<int>(threadIdx.x) % warpSize;
  if (threadIdx.x < 32) return;
  const unsigned mask = lane < 4 ? 0x0fu : 0xf0u;
  const int value = lane < 4 ? __shfl_down_sync(0x0fu, lane, 1, 4) : -lane;
  out[lane] = value * 100 + static_cast<int>(__ballot_sync(mask, lane % 2));
}

TEST(SimtWarp, PartOfAWarpGoesAlone) {
  in_every_order([] {
    std::vector<int> out(8);
    launch(1, 40, 0, halves_of_a_short_warp, out.data());
    EXPECT_THAT(out, ElementsAre(110, 210, 310, 310, -240, -340, -440, -540));
  });
}

__global__ void warp_votes(int limit, unsigned* out) {
  const int yes = static_cast<int>(threadIdx.x) < limit;
  out[threadIdx.x] = __ballot_sync(~0u, yes);
  EXPECT_EQ(__any_sync(~0u, yes), limit > 0);
  EXPECT_EQ(__all_sync(~0u, yes), limit == 32);
}

TEST(SimtWarp, Votes) {
  for (const int limit : {0, 1, 31, 32}) {
    std::vector<unsigned> out(32);
    launch(1, 32, 0, warp_votes, limit, out.data());
    EXPECT_THAT(out, Each(static_cast<unsigned>((std::uint64_t{1} << limit) - 1)));
  }
}

// Each lane reads what its neighbour wrote: surely there only after __syncwarp.
__global__ void count_neighbours(bool synchronized, int* out) {
  __shared__ int all[32];
  all[threadIdx.x] = 0;
  __syncthreads();
  all[threadIdx.x] = 1;
  if (synchronized) __syncwarp();
  *out += all[(threadIdx.x + 1) % 32];
}

TEST(SimtWarp, LanesDoNotMarchInStep) {
  in_every_order([] {
    int with = 0, without = 0;
    launch(1, 32, 0, count_neighbours, true, &with);
    launch(1, 32, 0, count_neighbours, false, &without);
    EXPECT_EQ(with, 32);
    EXPECT_LT(without, 32);
  });
}

__global__ void shuffle_not_reached(unsigned missing) {
  if (threadIdx.x == missing) __syncthreads();
  __shfl_down_sync(~0u, 1, 1);
  if (threadIdx.x != missing) __syncthreads();
}
__global__ void vote_of_mask(unsigned mask) { __ballot_sync(mask, 1); }
__global__ void read_outside_mask() {
  if (threadIdx.x < 16) __shfl_down_sync(0xffffu, 1, 8);
}

TEST(SimtWarp, ACallThatNotAllNamedLanesReachIsAnError) {
  in_every_order([] {
    const std::string missing = error_of(64, shuffle_not_reached, 37u);
    EXPECT_THAT(missing, HasSubstr("waits in __shfl_down_sync of the lanes 0xffffffff at "));
    EXPECT_THAT(missing, HasSubstr("but lane 5, block (0, 0, 0), thread (37, 0, 0), waits in "
                                   "__syncthreads at "));
    EXPECT_THAT(error_of(32, vote_of_mask, 0xfu), HasSubstr("leaves out lane"));
    EXPECT_THAT(error_of(20, vote_of_mask, ~0u), HasSubstr("beyond the warp's 20 threads"));
    EXPECT_THAT(error_of(32, read_outside_mask), HasSubstr("which the mask 0xffff does not name"));
  });
}

// ---- shared memory, atomics, errors

__global__ void sum_in_dynamic_shared(unsigned long long* out) {
  auto* values = reinterpret_cast<unsigned*>(simt_dynamic_shared());
  values[threadIdx.x] = threadIdx.x + blockIdx.x;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (unsigned i = 0; i < blockDim.x; ++i) out[blockIdx.x] += values[i];
}

TEST(SimtSharedMemory, EveryBlockHasItsOwn) {
  in_every_order([] {
    std::vector<unsigned long long> out(3);
    launch(3, 50, 50 * sizeof(unsigned), sum_in_dynamic_shared, out.data());
    EXPECT_THAT(out, ElementsAre(1225, 1275, 1325));
  });
}

__global__ void read_unwritten(unsigned* out) {
  *out = *reinterpret_cast<unsigned*>(simt_dynamic_shared());
}

TEST(SimtSharedMemory, StartsWithAnything) {
  std::set<unsigned> found;
  in_every_order([&] {
    unsigned out = 0;
    launch(1, 1, sizeof(unsigned), read_unwritten, &out);
    found.insert(out);
  });
  EXPECT_GT(found.size(), 1u);
}

#if defined(__SANITIZE_ADDRESS__)
__global__ void write_beyond(bool dynamic, unsigned at) {
  __shared__ unsigned fixed[8];
  (dynamic ? reinterpret_cast<unsigned*>(simt_dynamic_shared()) : fixed)[at] = at;
}

TEST(SimtSharedMemory, AStepBeyondItIsFound) {
  launch(1, 1, 8 * sizeof(unsigned), write_beyond, true, 7u);
  launch(1, 1, 8 * sizeof(unsigned), write_beyond, false, 7u);
  // AddressSanitizer's words, or UndefinedBehaviorSanitizer's if it comes first.
  const std::string found = "buffer-overflow|insufficient space";
  EXPECT_DEATH(launch(1, 1, 8 * sizeof(unsigned), write_beyond, true, 8u), found);
  EXPECT_DEATH(launch(1, 1, 8 * sizeof(unsigned), write_beyond, false, 8u), found);
}
#endif

__global__ void all_atomics(int* sum, unsigned* largest, int* least, unsigned long long* wide,
                            int* first) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  atomicAdd(sum, i);
  atomicMax(largest, static_cast<unsigned>(i));
  atomicMin(least, -i);
  atomicAdd(wide, 1ull << 40);
  if (atomicCAS(first, -1, i) == -1) atomicExch(first, i);
}

TEST(SimtAtomics, NoneIsLost) {
  std::set<int> firsts;
  in_every_order([&] {
    int sum = 0, least = 0, first = -1;
    unsigned largest = 0;
    unsigned long long wide = 0;
    launch(4, 100, 0, all_atomics, &sum, &largest, &least, &wide, &first);
    EXPECT_EQ(sum, 399 * 200);
    EXPECT_EQ(largest, 399u);
    EXPECT_EQ(least, -399);
    EXPECT_EQ(wide, 400ull << 40);
    firsts.insert(first);
  });
  EXPECT_GT(firsts.size(), 1u);
}

__global__ void trap_in(unsigned thread) {
  if (threadIdx.x == thread) __trap();
  __syncthreads();
}

TEST(SimtErrors, ATrapSaysWhere) {
  EXPECT_THAT(error_of(70, trap_in, 66u), HasSubstr("thread (66, 0, 0): __trap at "));
  EXPECT_EQ(error_of(70, trap_in, 70u), "no error");
}

__global__ void all_but_one_await(unsigned thread) {
  if (threadIdx.x != thread) simt_await_stream();
}

TEST(SimtErrors, AKernelThatMayBeginEarlyWaitsForThoseBeforeItInEveryThread) {
  cudaLaunchAttribute early{cudaLaunchAttributeProgrammaticStreamSerialization, {1}};
  const cudaLaunchConfig_t config{.gridDim = 1, .blockDim = 70, .attrs = &early, .numAttrs = 1};
  EXPECT_EQ(cudaLaunchKernelEx(&config, all_but_one_await, 70u), cudaSuccess);
  try {
    cudaLaunchKernelEx(&config, all_but_one_await, 66u);
    FAIL() << "not noticed";
  } catch (const paceline::simt::Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("thread (66, 0, 0)"));
    EXPECT_THAT(error.what(), HasSubstr("without waiting"));
  }
}

TEST(SimtErrors, ALaunchThatNoDeviceTakesIsRefused) {
  unsigned* out = nullptr;
  for (const cudaLaunchConfig_t& config :
       {cudaLaunchConfig_t{0, 32}, {1, 0}, {1, 1025}, {dim3(1, 65536), 1}, {1, 1, 48 * 1024 + 1}}) {
    EXPECT_EQ(cudaLaunchKernelEx(&config, read_unwritten, out), cudaErrorInvalidConfiguration);
  }
}

// ---- streams

struct Streams {
  Streams() {
    cudaStreamCreateWithFlags(&copies, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&kernels, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&copied, cudaEventDisableTiming);
    void* memory = nullptr;
    cudaMallocHost(&memory, sizeof(unsigned));
    pinned = static_cast<unsigned*>(memory);
  }
  ~Streams() {
    cudaFreeHost(pinned);
    cudaEventDestroy(copied);
    cudaStreamDestroy(kernels);
    cudaStreamDestroy(copies);
  }
  void copy(unsigned* to) const {
    cudaMemcpyAsync(to, pinned, sizeof(unsigned), cudaMemcpyHostToDevice, copies);
  }

  cudaStream_t copies = nullptr;
  cudaStream_t kernels = nullptr;
  cudaEvent_t copied = nullptr;
  unsigned* pinned = nullptr;
};

__global__ void add_to(unsigned* sum, const unsigned* value) { *sum += *value; }

TEST(SimtStreams, ACopyFromPinnedMemoryIsMadeNoSoonerThanItIsWaitedFor) {
  const Streams on;
  unsigned first = 0, second = 0;
  *on.pinned = 1;
  on.copy(&first);
  cudaEventRecord(on.copied, on.copies);
  on.copy(&second);
  EXPECT_EQ(first, 0u);
  cudaEventSynchronize(on.copied);
  EXPECT_EQ(first, 1u);
  *on.pinned = 2;  // too early for the second
  cudaStreamSynchronize(on.copies);
  EXPECT_EQ(first, 1u);
  EXPECT_EQ(second, 2u);
}

TEST(SimtStreams, WhatWaitsForACopyWaitsTillItIsMade) {
  const Streams on;
  unsigned value = 0, sum = 0, later = 0;
  const auto add = [&] {
    const cudaLaunchConfig_t config{1, 1, 0, on.kernels};
    cudaLaunchKernelEx(&config, add_to, &sum, &value);
  };
  add();
  *on.pinned = 5;
  on.copy(&value);
  cudaEventRecord(on.copied, on.copies);
  add();  // does not wait
  cudaStreamWaitEvent(on.kernels, on.copied);
  add();
  EXPECT_EQ(sum, 0u);
  const unsigned now = 7;
  unsigned host = now;
  cudaMemcpyAsync(&later, &host, sizeof(host), cudaMemcpyHostToDevice, on.kernels);
  host = 8;  // ordinary memory has been read
  cudaStreamSynchronize(on.kernels);
  EXPECT_EQ(sum, 5u);
  EXPECT_EQ(later, now);
}

TEST(SimtStreams, FreeingMemoryWaits) {
  const Streams on;
  unsigned value = 0;
  *on.pinned = 3;
  on.copy(&value);
  void* memory = nullptr;
  cudaMalloc(&memory, 4);
  cudaFree(memory);
  EXPECT_EQ(value, 3u);
  EXPECT_THROW(cudaFreeHost(&value), Error);
}

TEST(SimtErrors, BuiltinsOutsideOfAKernelAreAnError) { EXPECT_THROW(__syncthreads(), Error); }

}  // namespace
}  // namespace paceline::simt
