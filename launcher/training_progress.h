#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "runtime/training/training_log.h"

namespace paceline::launcher {

/// How a training goes, on standard error: on a terminal a bar that changes, else a line every ten
/// seconds; evaluations get a line of their own.
class TrainingProgress {
 public:
  TrainingProgress();
  ~TrainingProgress();

  /// After a step. `steps`: of the whole training, as far as known. `seconds_left` too.
  void step(const runtime::TrainingLog& log, std::uint64_t steps, double seconds_left);
  void evaluation(const runtime::LoggedEvaluation& evaluation);
  void line(const std::string& text);

 private:
  using Clock = std::chrono::steady_clock;
  void show(const std::string& text);

  bool on_terminal_;
  bool shown_ = false;  // the bar
  Clock::time_point last_ = Clock::now();
  double last_positions_ = -1;
};

/// "1:02:03", "12:05"
std::string duration_text(double seconds);

}  // namespace paceline::launcher
