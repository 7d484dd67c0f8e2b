#include "parallel/nccl/monitor.h"

#include <utility>

namespace paceline::parallel {

NcclMonitor::NcclMonitor(NcclCalls& calls, const RankState& state,
                         std::function<std::string()> describe,
                         std::function<void(const std::string&)> on_trouble)
    : calls_(calls),
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

void NcclMonitor::begun() {
  last_.store(Clock::now().time_since_epoch().count());
  entering_.store(true);
}

void NcclMonitor::enqueued() {
  last_.store(Clock::now().time_since_epoch().count());
  marked_.store(true);
  entering_.store(false);
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

// A stream that is not past the mark is at work or waits for other ranks. New exchanges show that
// it is at work: the host cannot run ahead of it for long.
std::string NcclMonitor::find_trouble() {
  const bool waits = entering_.load() || (marked_.load() && !calls_.passed());
  const Clock::duration waited = Clock::now().time_since_epoch() - Clock::duration(last_.load());
  if (waits && waited > state_.patience()) {
    return complaint(waited, describe_(), state_.phase());
  }
  return calls_.status() == NcclCalls::Status::kFailed ? calls_.error() : std::string();
}

}  // namespace paceline::parallel
