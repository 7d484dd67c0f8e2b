#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "parallel/nccl/calls.h"
#include "parallel/rank_state.h"

namespace paceline::parallel {

/// A thread that sees when a group's exchanges fail or do not end, while the thread that called
/// them may be waiting for the stream. It looks at NCCL's state and at the mark behind the last
/// exchange; neither waits.
class NcclMonitor {
 public:
  /// `describe` says what is being waited for. `on_trouble` gets a message, at most once, in the
  /// monitor's thread. All must outlive it.
  NcclMonitor(NcclCalls& calls, const RankState& state, std::function<std::string()> describe,
              std::function<void(const std::string&)> on_trouble);
  ~NcclMonitor();
  NcclMonitor(const NcclMonitor&) = delete;
  NcclMonitor& operator=(const NcclMonitor&) = delete;

  /// An exchange is being put on the stream; it has been, with a mark behind it.
  void begun();
  void enqueued();

  static constexpr std::chrono::milliseconds kPeriod{100};

 private:
  using Clock = std::chrono::steady_clock;
  void watch();
  std::string find_trouble();

  NcclCalls& calls_;
  const RankState& state_;
  std::function<std::string()> describe_;
  std::function<void(const std::string&)> on_trouble_;
  std::atomic<Clock::rep> last_{0};    // when the last exchange was begun or put on the stream
  std::atomic<bool> entering_{false};  // between begun and enqueued
  std::atomic<bool> marked_{false};    // there has been one
  std::mutex mutex_;
  std::condition_variable wake_;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace paceline::parallel
