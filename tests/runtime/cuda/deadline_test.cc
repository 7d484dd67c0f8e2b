#include <gtest/gtest.h>
#include <unistd.h>

#include "kernels/cuda/backend.h"
#include "parallel/shared_memory.h"
#include "parallel/watchdog.h"
#include "tests/support/simt/stream.h"

namespace paceline::runtime {
namespace {

/// A process that waits for its GPU, on whose stream there is something that does not end.
void wait_for_ever() {
  parallel::Signals signals;
  parallel::RankState state;
  const auto board = std::make_shared<parallel::Board>(
      std::make_shared<parallel::SharedSegment>(parallel::Board::bytes(1)), 0, 1, 0);
  parallel::Watchdog watchdog(board, "node1", signals, false, [] {});
  const auto backend = kernels::make_cuda_backend({});
  const auto native = backend->native_stream();
  watchdog.watch_device(native->wait, "GPU 0", state);
  simt::put_late(static_cast<SimtStream*>(native->stream), [] {
    for (;;) pause();
  });
  state.enter("decode", std::chrono::milliseconds(50));
  backend->synchronize();
}

TEST(CudaDeadline, AKernelThatDoesNotEndEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(wait_for_ever(), testing::ExitedWithCode(parallel::kPeerDiedExit),
              "paceline: rank 0 on node1 has waited [0-9.]+ s for GPU 0 in decode");
}

// What takes its time is not one long wait.
TEST(CudaDeadline, AWaitEndsWithItsCall) {
  const auto backend = kernels::make_cuda_backend({});
  const auto wait = backend->native_stream()->wait;
  EXPECT_EQ(wait->waited().count(), 0);
  kernels::DeviceWait::Clock::duration within{};
  simt::put_late(static_cast<SimtStream*>(backend->native_stream()->stream),
                 [&] { within = wait->waited(); });
  backend->synchronize();
  EXPECT_GT(within.count(), 0);
  EXPECT_EQ(wait->waited().count(), 0);
}

}  // namespace
}  // namespace paceline::runtime
