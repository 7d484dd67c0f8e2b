#include "launcher/training_progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>

namespace paceline::launcher {

std::string duration_text(double seconds) {
  const auto whole = static_cast<std::int64_t>(std::clamp(seconds, 0.0, 1e9));
  const std::int64_t hours = whole / 3600;
  const std::string rest = fmt::format("{:02}:{:02}", whole / 60 % 60, whole % 60);
  return hours > 0 ? fmt::format("{}:{}", hours, rest) : rest;
}

TrainingProgress::TrainingProgress() : on_terminal_(isatty(STDERR_FILENO) == 1) {}

TrainingProgress::~TrainingProgress() {
  if (shown_) std::cerr << "\n";
}

void TrainingProgress::show(const std::string& text) {
  std::cerr << (on_terminal_ ? "\r\x1b[K" : "") << text << (on_terminal_ ? "" : "\n") << std::flush;
  shown_ = on_terminal_;
}

void TrainingProgress::line(const std::string& text) {
  std::cerr << (shown_ ? "\r\x1b[K" : "") << text << "\n" << std::flush;
  shown_ = false;
}

void TrainingProgress::step(const runtime::TrainingLog& log, std::uint64_t steps,
                            double seconds_left) {
  const auto now = Clock::now();
  const double seconds = std::chrono::duration<double>(now - last_).count();
  if (last_positions_ >= 0 && seconds < (on_terminal_ ? 0.5 : 10.0)) return;
  const double speed = last_positions_ < 0 ? 0 : (log.positions() - last_positions_) / seconds;
  last_ = now;
  last_positions_ = log.positions();
  std::string bar;
  if (on_terminal_) {
    constexpr std::size_t kCells = 20;
    const double share = static_cast<double>(log.last().step) / static_cast<double>(steps);
    const auto full = static_cast<std::size_t>(std::clamp(share, 0.0, 1.0) * kCells);
    bar = fmt::format("[{:.<{}}] ", std::string(full, '#'), kCells);
  }
  show(fmt::format("{}step {}/{}, loss {:.4f}, rate {:.2e}, {:.0f} positions/s, {} left", bar,
                   log.last().step, steps, log.last().loss, log.last().learning_rate, speed,
                   duration_text(seconds_left)));
}

void TrainingProgress::evaluation(const runtime::LoggedEvaluation& evaluation) {
  std::string text = fmt::format("held out after {:.0f} positions: loss {:.4f}, accepted by depth",
                                 evaluation.positions, evaluation.result.loss);
  for (const double share : evaluation.result.acceptance) text += fmt::format(" {:.3f}", share);
  text += ", tokens per step";
  for (std::size_t k = 0; k < drafter::kTriedTokens.size(); ++k) {
    text += fmt::format(" {:.3f} (top {})", evaluation.result.tokens_per_step[k],
                        drafter::kTriedTokens[k]);
  }
  for (const auto& [shape, tokens] : evaluation.shapes) {
    text += fmt::format(", {} {:.3f}", shape, tokens);
  }
  line(text);
}

}  // namespace paceline::launcher
