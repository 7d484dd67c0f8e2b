#include "parallel/nccl/monitor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/parallel/nccl/fake_nccl.h"

namespace paceline::parallel {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const std::vector<NcclOperation> kNothing;

/// A communicator of one rank, and what its monitor says.
struct Watched {
  FakeNcclNetwork network{1};
  std::unique_ptr<NcclCalls> calls = network.calls();
  RankState state;
  std::mutex mutex;
  std::condition_variable said;
  std::string trouble;
  NcclMonitor monitor{*calls, state, [] { return "an exchange"; },
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

// Its patience is over long before the monitor looks.
TEST(NcclMonitorTest, AnExchangeThatHasEndedIsNoTrouble) {
  Watched watched;
  watched.monitor.begun();
  watched.calls->enqueue(kNothing);
  watched.settle();
  watched.monitor.enqueued();
  EXPECT_EQ(watched.wait_for_trouble(5 * NcclMonitor::kPeriod / 2), "");
}

TEST(NcclMonitorTest, TellsOfAnExchangeThatDoesNotEnd) {
  Watched watched;
  watched.network.stall();
  watched.calls->enqueue(kNothing);
  watched.monitor.enqueued();
  EXPECT_THAT(watched.wait_for_trouble(),
              AllOf(HasSubstr("waited "), HasSubstr("for an exchange in decode")));
}

// The host may be stuck before there is anything on the stream.
TEST(NcclMonitorTest, TellsOfAnExchangeThatDoesNotBegin) {
  Watched watched;
  watched.monitor.begun();
  EXPECT_THAT(watched.wait_for_trouble(), HasSubstr("for an exchange in decode"));
}

TEST(NcclMonitorTest, TellsOfWhatNcclNotices) {
  Watched watched;
  watched.network.fail("NCCL: unhandled system error");
  EXPECT_EQ(watched.wait_for_trouble(), "NCCL: unhandled system error");
}

}  // namespace
}  // namespace paceline::parallel
