#include "parallel/nccl/monitor.h"

#include <utility>

namespace paceline::parallel {

NcclMonitor::NcclMonitor(NcclCalls& calls, const kernels::DeviceWait& wait, const RankState& state,
                         std::function<std::string()> describe,
                         std::function<void(const std::string&)> on_trouble)
    : calls_(calls),
      wait_(wait),
      state_(state),
      describe_(std::move(describe)),
      on_trouble_(std::move(on_trouble)),
      thread_([this] { watch(); }) {}

NcclMonitor::~NcclMonitor() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void NcclMonitor::watch() {
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      if (wake_.wait_for(lock, kPeriod, [this] { return ending_; })) return;
    }
    const std::string trouble = find_trouble();
    if (trouble.empty()) continue;
    on_trouble_(trouble);
    return;
  }
}

// A stream that does not end is at work or waits for other ranks, and sooner or later the host
// waits for it: the tokens of every step come from there.
std::string NcclMonitor::find_trouble() {
  const kernels::DeviceWait::Clock::duration waited = wait_.waited();
  overdue_looks_ = waited > state_.patience() ? overdue_looks_ + 1 : 0;
  if (overdue_looks_ >= kernels::DeviceWait::kLooks) {
    return complaint(waited, describe_(), state_.phase());
  }
  return calls_.status() == NcclCalls::Status::kFailed ? calls_.error() : std::string();
}

}  // namespace paceline::parallel
