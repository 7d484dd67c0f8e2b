#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "runtime/job/prompt_encoder.h"
#include "runtime/job/work.h"
#include "runtime/requests/answer_checksum.h"
#include "runtime/requests/jsonl_input.h"
#include "runtime/requests/output_file.h"
#include "runtime/requests/result_line.h"

namespace paceline::runtime {

/// What a job's answers come to. Requests that an earlier run finished count in `resumed` alone.
struct JobTotals {
  std::int64_t requests = 0;
  std::int64_t resumed = 0;
  std::int64_t answered = 0;
  std::int64_t failed = 0;  // error lines
  std::int64_t prompt_tokens = 0;
  std::int64_t generated_tokens = 0;
  std::int64_t steps = 0;       // sum over requests
  std::vector<double> ttft_ms;  // of each answer
};

/// Rank 0's side of `paceline generate`: requests in input order to work, results in completion
/// order to the output file.
class GenerateJob {
 public:
  GenerateJob(const JsonlInput& input, const PromptEncoder& encoder, const OutputState& state,
              OutputFile output, ResultFormat format);

  /// Up to `wanted` further requests that no earlier run finished. Writes the error line of one
  /// that cannot be served.
  std::vector<WorkItem> next(std::size_t wanted);
  bool exhausted() const { return next_ == input_.size(); }
  /// Writes the answer.
  void complete(const WorkResult& result);

  std::int64_t finished() const { return totals_.resumed + totals_.answered + totals_.failed; }
  const JobTotals& totals() const { return totals_; }

  /// Synchronizes the output to disk.
  void finish() { output_.finish(); }
  /// The checksum of all answers; needs every request to be finished.
  std::string checksum() const { return checksum_.finish_hex(); }

 private:
  struct Running {
    Request request;
    std::int64_t prompt_tokens = 0;
    std::uint64_t seed = 0;
  };
  void fail(std::size_t index, const RequestError& error, std::string_view code);

  const JsonlInput& input_;
  const PromptEncoder& encoder_;
  OutputFile output_;
  ResultFormat format_;
  AnswerChecksum checksum_;
  std::vector<bool> finished_before_;
  std::unordered_map<std::int64_t, Running> running_;  // by index
  std::size_t next_ = 0;
  JobTotals totals_;
};

}  // namespace paceline::runtime
