#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace paceline::parallel {

/// How long a rank waits for the others unless a phase says otherwise.
inline constexpr std::chrono::milliseconds kPatience = std::chrono::seconds(120);

/// What a rank is doing, in at most 15 characters ("load", "prefill"), kept in lock-free atomics so
/// that it may live in memory shared between processes. A reader may see a mix of two names for an
/// instant; names are for people.
class PhaseName {
 public:
  void store(std::string_view name);
  std::string load() const;

 private:
  std::atomic<std::uint64_t> words_[2] = {};
};

/// What a rank is doing and how it waits for others meanwhile: written by the main thread, read by
/// its communicators and watchdog.
class RankState {
 public:
  /// From now on waits give up after `patience`.
  void enter(std::string_view phase, std::chrono::milliseconds patience = kPatience);
  std::string phase() const { return phase_.load(); }
  std::chrono::milliseconds patience() const {
    return std::chrono::milliseconds(patience_.load(std::memory_order_relaxed));
  }

  /// More ranks or threads than cores: a waiting rank leaves its core at once instead of spinning.
  void set_crowded(bool crowded) { crowded_.store(crowded, std::memory_order_relaxed); }
  bool crowded() const { return crowded_.load(std::memory_order_relaxed); }

 private:
  PhaseName phase_;
  std::atomic<std::int64_t> patience_{kPatience.count()};
  std::atomic<bool> crowded_{false};
};

/// "waited 120 s for rank 3 on node1 in load"
std::string complaint(std::chrono::duration<double> waited, std::string_view missing,
                      std::string_view phase);

/// One wait for other ranks. A rest is short at first (spinning, for exchanges that take
/// microseconds), then gives way to other threads, then sleeps.
class Wait {
 public:
  explicit Wait(const RankState& state)
      : state_(state), spins_left_(state.crowded() ? 0 : kSpins) {}
  /// Rests once. False when the phase's patience is over.
  bool rest();
  std::string complaint(std::string_view missing) const;

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr int kSpins = 4000;  // about 50 to 100 microseconds
  static constexpr std::chrono::milliseconds kYielding{5};
  static constexpr std::chrono::microseconds kSleep{50};

  const RankState& state_;
  int spins_left_;
  bool timed_ = false;
  Clock::time_point start_;
};

}  // namespace paceline::parallel
