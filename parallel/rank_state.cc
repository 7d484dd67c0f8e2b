#include "parallel/rank_state.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <cstring>
#include <thread>

namespace paceline::parallel {
namespace {

void pause_core() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

void PhaseName::store(std::string_view name) {
  std::uint64_t words[2] = {};
  std::memcpy(words, name.data(), std::min(name.size(), sizeof(words) - 1));
  words_[0].store(words[0], std::memory_order_relaxed);
  words_[1].store(words[1], std::memory_order_relaxed);
}

std::string PhaseName::load() const {
  const std::uint64_t words[2] = {words_[0].load(std::memory_order_relaxed),
                                  words_[1].load(std::memory_order_relaxed)};
  char text[sizeof(words) + 1] = {};
  std::memcpy(text, words, sizeof(words));
  return text;
}

void RankState::enter(std::string_view phase, std::chrono::milliseconds patience) {
  phase_.store(phase);
  patience_.store(patience.count(), std::memory_order_relaxed);
}

bool Wait::rest() {
  if (spins_left_ > 0) {
    --spins_left_;
    pause_core();
    return true;
  }
  const Clock::time_point now = Clock::now();
  if (!timed_) {
    timed_ = true;
    start_ = now;
  }
  const Clock::duration waited = now - start_;
  if (waited >= state_.patience()) return false;
  if (waited < kYielding) {
    sched_yield();
  } else {
    std::this_thread::sleep_for(kSleep);
  }
  return true;
}

std::string complaint(std::chrono::duration<double> waited, std::string_view missing,
                      std::string_view phase) {
  return fmt::format("waited {:.3g} s for {} in {}", waited.count(), missing, phase);
}

std::string Wait::complaint(std::string_view missing) const {
  return parallel::complaint(timed_ ? Clock::now() - start_ : Clock::duration{}, missing,
                             state_.phase());
}

}  // namespace paceline::parallel
