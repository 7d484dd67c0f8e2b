#pragma once

#include <cstdint>
#include <vector>

#include "drafter/drafter.h"
#include "kernels/api.h"
#include "parallel/communicator.h"
#include "runtime/model/llama.h"

namespace paceline::runtime {

/// Seconds that the parts of a step take on this machine, by their size.
struct StepCosts {
  struct Point {
    std::int32_t rows = 0;
    double seconds = 0;
  };
  std::vector<Point> step;   ///< a packed batch of so many rows, each with a token chosen
  std::vector<Point> draft;  ///< one depth of the draft head for so many beams; empty: free

  /// Between two points by the line through them, beyond the last by the line through the last two.
  /// 0 if there is no point.
  double step_seconds(std::int32_t rows) const;
  double draft_seconds(std::int32_t beams) const;
};

/// What a measurement may use.
struct MeasuredEngine {
  LlamaModel& model;
  kernels::Backend& backend;
  parallel::Communicator& communicator;
  const kernels::KvPool& cache;  ///< whose pages nobody holds yet
  drafter::Drafter* head;        ///< null: nobody drafts by a head
  std::int32_t max_rows;         ///< of a step, all with logits
};

/// Feeds one row through the model, so that what a GPU's driver compiles or loads for a kernel's
/// first launch is there before requests wait for it. All ranks call it; nobody holds pages yet.
void warm_up(LlamaModel& model, kernels::Backend& backend, const kernels::KvPool& cache);

/// Measures in about half a second. All ranks of the communicator call it; all get the first one's
/// figures.
StepCosts measure_step_costs(const MeasuredEngine& engine);

}  // namespace paceline::runtime
