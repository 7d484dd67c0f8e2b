#pragma once

#include <cstdint>
#include <vector>

#include "runtime/bench/workload.h"
#include "runtime/engine/engine.h"

namespace paceline::runtime {

/// What became of one request. Times are seconds after the run's start.
struct RequestRecord {
  std::int32_t task = 0;
  std::int32_t prompt_tokens = 0;
  std::int32_t new_tokens = 0;
  bool failed = false;         // a logit was not finite
  double sent = 0;             // when it came: its arrival, or when its place was free
  std::vector<double> chunks;  // when the tokens of a step came, for each step that gave some
};

/// What one step took, as the leader saw it.
struct StepRecord {
  double seconds = 0;  // the whole step
  double forward = 0;  // of these in the model
  std::int32_t context_rows = 0;
  std::int32_t generation_rows = 0;
};

/// A run from the first request to the last token.
struct LoadRecord {
  std::vector<RequestRecord> requests;
  std::vector<StepRecord> steps;  // those that fed rows
  double seconds = 0;
};

std::vector<std::byte> encode_load(const LoadRecord& record);
LoadRecord decode_load(std::span<const std::byte> bytes);

/// The leader's side of one run: sends the workload's requests through an engine that has served
/// nothing yet, and stops it. The replica's other ranks `follow` it (runtime/job/replica.h).
LoadRecord run_load(Engine& engine, const Workload& workload);

}  // namespace paceline::runtime
