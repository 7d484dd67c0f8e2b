#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "kernels/core/device_wait.h"
#include "parallel/nccl/calls.h"
#include "parallel/rank_state.h"

namespace paceline::parallel {

/// A thread that sees when a group's exchanges fail or do not end, while the thread that called
/// them is waiting for the stream. It looks at NCCL's state and at how long the host has waited for
/// the device, which is the same whether exchanges were started one by one or repeated with a
/// recorded step; neither look waits.
class NcclMonitor {
 public:
  /// `describe` says what is being waited for. `on_trouble` gets a message, at most once, in the
  /// monitor's thread. All must outlive it.
  NcclMonitor(NcclCalls& calls, const kernels::DeviceWait& wait, const RankState& state,
              std::function<std::string()> describe,
              std::function<void(const std::string&)> on_trouble);
  ~NcclMonitor();
  NcclMonitor(const NcclMonitor&) = delete;
  NcclMonitor& operator=(const NcclMonitor&) = delete;

  static constexpr std::chrono::milliseconds kPeriod{100};

 private:
  void watch();
  std::string find_trouble();

  NcclCalls& calls_;
  const kernels::DeviceWait& wait_;
  const RankState& state_;
  std::function<std::string()> describe_;
  std::function<void(const std::string&)> on_trouble_;
  int overdue_looks_ = 0;  // one after the other; the monitor's thread
  std::mutex mutex_;
  std::condition_variable wake_;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace paceline::parallel
