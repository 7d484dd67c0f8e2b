#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "parallel/communicator.h"
#include "runtime/job/exchange.h"
#include "runtime/job/generate_job.h"

namespace paceline::launcher {

/// Everything that the summary and `--report` say.
struct GenerateFigures {
  runtime::JobTotals totals;
  std::vector<runtime::ReplicaReport> replicas;
  std::vector<std::uint64_t> peak_memory;  // bytes, of each rank
  double load_seconds = 0;
  double run_seconds = 0;  // from the loaded model to the last answer
  std::string numerics_id;
  std::string backend;
  std::vector<std::string> drafters;  // kinds; empty: none
  int ranks = 1;
  int tp = 1;
  std::string checksum;  // empty if requests are left
};

/// For the terminal.
std::string summary_text(const GenerateFigures& figures);

/// As JSON; ConfigError if the file cannot be written.
void write_report(const std::filesystem::path& path, const GenerateFigures& figures);

/// How often a tree that reached a depth was accepted so far, by depth from 1.
std::vector<double> acceptance_by_depth(const runtime::EngineStats& stats);

/// Peak resident memory of every rank in bytes (all ranks call it).
std::vector<std::uint64_t> gather_peak_memory(parallel::Communicator& ranks);

/// "SmolLM2-135M-Instruct" for "models/SmolLM2-135M-Instruct/".
std::string model_name(const std::filesystem::path& directory);

/// A line on standard error every two seconds: requests done, tokens, speed. On a terminal it is
/// one line that changes.
class ProgressLine {
 public:
  explicit ProgressLine(const runtime::GenerateJob& job);
  ~ProgressLine();
  void tick(const std::vector<runtime::ReplicaReport>& reports);

 private:
  using Clock = std::chrono::steady_clock;
  const runtime::GenerateJob& job_;
  bool on_terminal_;
  bool shown_ = false;
  Clock::time_point last_ = Clock::now();
  std::int64_t last_tokens_ = 0;
};

}  // namespace paceline::launcher
