#pragma once

#include <atomic>
#include <chrono>

namespace paceline::kernels {

/// Since when a thread has been in a call that may wait for a device, so that others can tell when
/// that takes too long without calling anything that could wait itself. One thread at a time makes
/// such calls; any may ask.
class DeviceWait {
 public:
  using Clock = std::chrono::steady_clock;
  /// A process that was stopped finds that it has waited for long, and that the call is over a
  /// moment later: a wait is too long if it has been at so many looks, some 100 ms apart.
  static constexpr int kLooks = 5;

  /// The time of one call. A call within another counts from its own beginning; when it is over the
  /// other's time begins anew.
  class Scope {
   public:
    explicit Scope(DeviceWait& wait) : wait_(wait), within_(wait.since_.load() != 0) {
      wait_.begin();
    }
    ~Scope() { within_ ? wait_.begin() : wait_.since_.store(0); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    DeviceWait& wait_;
    bool within_;
  };

  /// How long the call under way has taken; zero where there is none.
  Clock::duration waited() const {
    const Clock::rep since = since_.load();
    return since == 0 ? Clock::duration{}
                      : Clock::now().time_since_epoch() - Clock::duration(since);
  }

 private:
  void begin() { since_.store(Clock::now().time_since_epoch().count()); }
  std::atomic<Clock::rep> since_{0};  // 0: not in a call
};

}  // namespace paceline::kernels
