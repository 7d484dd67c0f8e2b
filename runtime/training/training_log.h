#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "drafter/training/evaluation.h"
#include "drafter/training/trainer.h"
#include "runtime/files/json.h"

namespace paceline::runtime {

/// What one evaluation on the held-out texts found.
struct LoggedEvaluation {
  std::uint64_t step = 0;
  double positions = 0;  ///< trained on so far
  drafter::Evaluation result;
  /// Tokens per step by beam shape, drafted and verified as in decoding: {"8x4", 2.1}. Not every
  /// evaluation has them.
  std::vector<std::pair<std::string, double>> shapes;
};

/// OUTPUT/training_log.jsonl: what a training did, a JSON object a line. A step's line is
///   {"step", "positions", "loss", "learning_rate", "gradient_norm", "seconds"}
/// with positions and seconds since the very beginning, resumed runs included; an evaluation's is
///   {"step", "positions", "evaluation": {"loss", "acceptance": [by depth],
///    "tokens_per_step": {"1", "2", "4", "8": by tokens tried after each node}, "shapes": {...}}}
class TrainingLog {
 public:
  /// Goes on behind the lines of steps up to `resumed`; 0 begins anew. Throws ConfigError naming
  /// the file if it cannot be read or written, or if a line is not one of ours.
  TrainingLog(const std::filesystem::path& path, std::uint64_t resumed);

  /// Counts a step; what write_step writes is the last one counted, if it is not there yet.
  void count(const drafter::StepReport& report);
  /// `seconds`: of this run.
  void write_step(double seconds);
  void write(LoggedEvaluation evaluation);

  double positions() const { return positions_; }
  double seconds_before() const { return seconds_before_; }  ///< of the runs before this one
  const std::vector<LoggedEvaluation>& evaluations() const { return evaluations_; }
  /// Of the last step counted.
  const drafter::StepReport& last() const { return last_; }

 private:
  std::string kept_lines(const std::filesystem::path& path, std::uint64_t resumed);
  void keep(const Json& line, const std::string& place);
  void write_line(const OrderedJson& line);

  std::filesystem::path path_;
  std::ofstream file_;
  double positions_ = 0;
  double seconds_before_ = 0;
  std::vector<LoggedEvaluation> evaluations_;
  drafter::StepReport last_;
  bool written_ = true;  // last_
};

}  // namespace paceline::runtime
