#include "kernels/cuda/graphs.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "kernels/cuda/intrinsics.h"
#include "kernels/cuda/launch.h"

namespace paceline::kernels::cuda {
namespace {

using Key = std::array<std::int64_t, 1>;

__global__ void append_kernel(int* to, int* count, int value) {
  join_stream();
  if (threadIdx.x == 0) to[(*count)++] = value;
}

class GraphCacheTest : public testing::Test {
 protected:
  GraphCacheTest() { cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking); }
  ~GraphCacheTest() override { cudaStreamDestroy(stream_); }

  /// Puts two kernels on the stream under a key, and counts how often it was asked to.
  void run(std::int64_t key, int value) {
    graphs_.run(
        Key{key},
        [&] {
          ++called_;
          launch("append", {1, 32}, stream_, append_kernel, memory_.data(), count_.data(), value);
          launch("append", {1, 32}, stream_, append_kernel, memory_.data(), count_.data(),
                 value + 1);
        },
        stream_);
    check_call("cudaStreamSynchronize", cudaStreamSynchronize(stream_));
  }

  std::vector<int> appended() const { return {memory_.begin(), memory_.begin() + count_[0]}; }

  cudaStream_t stream_ = nullptr;
  GraphCache graphs_;
  std::vector<int> memory_ = std::vector<int>(1000);
  std::vector<int> count_ = {0};
  int called_ = 0;
};

TEST_F(GraphCacheTest, RecordsTheSecondTimeAndRepeatsFromTheThirdOn) {
  run(7, 10);
  run(7, 10);
  EXPECT_EQ(called_, 2);
  EXPECT_EQ(graphs_.recorded(), 1);
  run(7, 10);
  run(7, 10);
  EXPECT_EQ(called_, 2);
  EXPECT_EQ(graphs_.repeated(), 2);
  EXPECT_EQ(appended(), (std::vector<int>{10, 11, 10, 11, 10, 11, 10, 11}));
}

// What a key did not tell apart is what it was when it was recorded.
TEST_F(GraphCacheTest, ParametersAreThoseOfTheRecording) {
  for (const int value : {10, 20, 30}) run(7, value);
  EXPECT_EQ(appended(), (std::vector<int>{10, 11, 20, 21, 20, 21}));
}

TEST_F(GraphCacheTest, KeysAreToldApart) {
  for (int i = 0; i < 3; ++i) {
    run(1, 10);
    run(2, 20);
  }
  EXPECT_EQ(graphs_.recorded(), 2);
  EXPECT_EQ(appended(), (std::vector<int>{10, 11, 20, 21, 10, 11, 20, 21, 10, 11, 20, 21}));
}

TEST_F(GraphCacheTest, ForgetsWhatIsNoLongerTrue) {
  for (int i = 0; i < 3; ++i) run(7, 10);
  graphs_.forget(stream_);
  run(7, 20);
  EXPECT_EQ(called_, 3);
  EXPECT_EQ(appended().back(), 21);
}

// It is done all the same, and destroyed no sooner (on the emulator that would end the program).
TEST_F(GraphCacheTest, ForgetsWhatIsUnderWay) {
  for (int i = 0; i < 2; ++i) run(7, 10);
  void* pinned = nullptr;
  check_call("cudaMallocHost", cudaMallocHost(&pinned, sizeof(int)));
  *static_cast<int*>(pinned) = 4;
  // The stream waits for a copy, and the graph for both.
  check_call("cudaMemcpyAsync",
             cudaMemcpyAsync(count_.data(), pinned, sizeof(int), cudaMemcpyHostToDevice, stream_));
  graphs_.run(
      Key{7}, [] { FAIL() << "it was recorded"; }, stream_);
  graphs_.forget(stream_);
  check_call("cudaStreamSynchronize", cudaStreamSynchronize(stream_));
  graphs_.forget(stream_);
  EXPECT_EQ(appended(), (std::vector<int>{10, 11, 10, 11, 10, 11}));
  check_call("cudaFreeHost", cudaFreeHost(pinned));
}

TEST_F(GraphCacheTest, DropsWhatWasNotUsedForLongest) {
  for (int i = 0; i < 2; ++i) run(0, 10);
  for (std::int64_t key = 1; key < static_cast<std::int64_t>(GraphCache::kMostGraphs); ++key) {
    run(key, 10);
  }
  run(0, 10);
  EXPECT_EQ(graphs_.repeated(), 1);
  run(-1, 10);  // one too many: key 1 goes
  run(0, 10);
  EXPECT_EQ(graphs_.repeated(), 2);
  run(1, 10);
  EXPECT_EQ(graphs_.recorded(), 1);
}

TEST_F(GraphCacheTest, AMistakeWhileRecordingLeavesTheStreamUsable) {
  run(7, 10);
  EXPECT_ANY_THROW(graphs_.run(
      Key{7}, [] { fail("no"); }, stream_));
  EXPECT_FALSE(graphs_.recording());
  run(7, 20);
  run(7, 30);
  EXPECT_EQ(appended(), (std::vector<int>{10, 11, 20, 21, 20, 21}));
}

// A copy or a wait cannot be part of a step that is repeated.
TEST_F(GraphCacheTest, OnlyKernelsAreRecorded) {
  run(7, 10);
  EXPECT_ANY_THROW(graphs_.run(
      Key{7}, [&] { check_call("cudaStreamSynchronize", cudaStreamSynchronize(stream_)); },
      stream_));
}

}  // namespace
}  // namespace paceline::kernels::cuda
