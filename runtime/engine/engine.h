#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "kernels/api.h"
#include "parallel/communicator.h"
#include "runtime/engine/agreement.h"
#include "runtime/engine/control.h"
#include "runtime/engine/packed_batch.h"
#include "runtime/engine/scheduler.h"
#include "runtime/model/llama.h"

namespace paceline::runtime {

/// What a step did for one request.
struct TokenEvent {
  std::uint64_t uid = 0;
  std::int32_t token = -1;  // the token sampled; -1 if there is none (kNonFinite)
  EndReason end = EndReason::kNone;
};

/// Where the time of all steps went, in seconds.
struct PhaseTimes {
  double agree = 0;    // waiting for the other ranks' and the leader's word
  double plan = 0;     // scheduling and packing
  double forward = 0;  // the model, exchanges between ranks included
  double select = 0;   // choosing tokens
  double accept = 0;   // appending them
};

struct EngineStats {
  std::int64_t steps = 0;
  std::int64_t context_rows = 0;  // prompt tokens fed, recomputed ones included
  std::int64_t generation_rows = 0;
  std::int64_t sampled_tokens = 0;
  std::int64_t preemptions = 0;
  std::int32_t peak_pages = 0;
  PhaseTimes time;
};

/// What the engine asks of and tells the process around it.
struct EngineHooks {
  std::function<bool()> terminate;                    // has this process been asked to end?
  std::function<void(std::string_view)> enter_phase;  // "prefill", "decode", "wait"
};

/// One rank's engine: runs requests in packed steps. All ranks of a replica construct it alike and
/// call `step` in turn; only the leader's control counts.
class Engine {
 public:
  Engine(LlamaModel& model, kernels::Backend& backend, parallel::Communicator& communicator,
         const SchedulerLimits& limits, const kernels::KvPool& cache, EngineHooks hooks);

  /// One step (runtime/engine/step.cc shows it whole). The events returned are this step's own;
  /// they are known to be equal on all ranks once the next call returns. After a control with
  /// `stop` the step is empty, and no other may follow.
  std::vector<TokenEvent> step(const Control& control);

  bool idle() const { return scheduler_.running() == 0 && scheduler_.waiting() == 0; }
  bool stopped() const { return stopped_; }
  /// A rank of the replica had been asked to end when the last step began; the same on all of them.
  bool termination_requested() const { return agreement_.termination_requested(); }
  std::int32_t max_sequences() const { return scheduler_.limits().max_sequences; }
  const Scheduler& scheduler() const { return scheduler_; }
  EngineStats stats() const;

 private:
  void apply(const Control& control);
  std::vector<std::int32_t> select(const float* logits);
  std::vector<TokenEvent> accept(const StepPlan& plan, const std::vector<std::int32_t>& tokens);
  EndReason end_after(const Sequence& sequence, std::int32_t token) const;

  LlamaModel& model_;
  kernels::Backend& backend_;
  EngineHooks hooks_;
  Agreement agreement_;
  Scheduler scheduler_;
  kernels::KvPool cache_;
  PackedBatch batch_;
  kernels::Buffer sampling_;  // SamplingRow [R]
  kernels::Buffer tokens_;    // int32 [R]
  std::uint64_t last_decisions_ = 0;
  bool stopped_ = false;
  EngineStats stats_;
};

}  // namespace paceline::runtime
