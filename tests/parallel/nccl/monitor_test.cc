#include "parallel/nccl/monitor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/parallel/nccl/fake_nccl.h"

namespace paceline::parallel {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

/// A communicator of one rank, and what its monitor says.
struct Watched {
  FakeNcclNetwork network{1};
  std::unique_ptr<NcclCalls> calls = network.calls();
  kernels::DeviceWait wait;
  RankState state;
  std::mutex mutex;
  std::condition_variable said;
  std::string trouble;
  NcclMonitor monitor{*calls, wait, state, [] { return "an exchange"; },
                      [this](const std::string& message) {
                        const std::lock_guard lock(mutex);
                        trouble = message;
                        said.notify_all();
                      }};

  Watched() {
    calls->begin_init(calls->make_unique_id(), 1, 0);
    settle();
    state.enter("decode", std::chrono::milliseconds(1));
  }
  void settle() {
    while (calls->status() == NcclCalls::Status::kInProgress) {
    }
  }
  std::string wait_for_trouble(std::chrono::milliseconds limit = std::chrono::minutes(1)) {
    std::unique_lock lock(mutex);
    said.wait_for(lock, limit, [this] { return !trouble.empty(); });
    return trouble;
  }
};

TEST(NcclMonitorTest, AWaitThatHasEndedIsNoTrouble) {
  Watched watched;
  watched.state.enter("decode", std::chrono::minutes(1));
  { const kernels::DeviceWait::Scope waiting(watched.wait); }
  watched.state.enter("decode", std::chrono::milliseconds(1));
  EXPECT_EQ(watched.wait_for_trouble(5 * NcclMonitor::kPeriod / 2), "");
}

TEST(NcclMonitorTest, TellsOfAWaitForTheDeviceThatDoesNotEnd) {
  Watched watched;
  const kernels::DeviceWait::Scope waiting(watched.wait);
  EXPECT_THAT(watched.wait_for_trouble(),
              AllOf(HasSubstr("waited "), HasSubstr("for an exchange in decode")));
}

TEST(NcclMonitorTest, TellsOfWhatNcclNotices) {
  Watched watched;
  watched.network.fail("NCCL: unhandled system error");
  EXPECT_EQ(watched.wait_for_trouble(), "NCCL: unhandled system error");
}

}  // namespace
}  // namespace paceline::parallel
