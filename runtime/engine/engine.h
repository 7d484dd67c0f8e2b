#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "drafter/acceptance.h"
#include "drafter/drafter.h"
#include "kernels/api.h"
#include "kernels/core/function_ref.h"
#include "parallel/communicator.h"
#include "runtime/drafting/draft_planner.h"
#include "runtime/engine/agreement.h"
#include "runtime/engine/control.h"
#include "runtime/engine/packed_batch.h"
#include "runtime/engine/scheduler.h"
#include "runtime/model/llama.h"

namespace paceline::runtime {

/// A token that a step gave a request; a request that accepted drafts has several in a row.
struct TokenEvent {
  std::uint64_t uid = 0;
  std::int32_t token = -1;  // the token sampled; -1 if there is none (kNonFinite)
  EndReason end = EndReason::kNone;
};

/// Where the time of all steps went, in seconds. What a GPU has been given to do the host waits for
/// in `accept`, which then includes all that the GPU did; in `draft` only where the host has to see
/// the trees.
struct PhaseTimes {
  double agree = 0;    // waiting for the other ranks' and the leader's word
  double plan = 0;     // scheduling and packing
  double draft = 0;    // guessing trees
  double forward = 0;  // the model, exchanges between ranks included
  double select = 0;   // choosing tokens
  double accept = 0;   // appending them
};

struct EngineStats {
  std::int64_t steps = 0;
  std::int64_t steps_ahead = 0;   // planned while the one before was under way
  std::int64_t context_rows = 0;  // prompt tokens fed, recomputed ones included
  std::int64_t generation_rows = 0;
  std::int64_t sampled_tokens = 0;
  std::int64_t tree_rows = 0;          // nodes verified, of the generation rows
  std::int64_t saved_rows = 0;         // that merging equal beginnings saved
  std::int64_t non_finite_drafts = 0;  // drafts whose numbers were not finite: empty trees
  /// By depth from 1: trees that reached it, and how often its node was accepted.
  std::array<std::int64_t, drafter::kMaxDraftDepth> drafted_at = {};
  std::array<std::int64_t, drafter::kMaxDraftDepth> accepted_at = {};
  std::int64_t preemptions = 0;
  std::int32_t peak_pages = 0;
  PhaseTimes time;
};

/// What the engine asks of and tells the process around it.
struct EngineHooks {
  std::function<bool()> terminate;                    // has this process been asked to end?
  std::function<void(std::string_view)> enter_phase;  // "wait", "draft", "prefill", "decode"
};

/// Who guesses the next tokens, and how many.
struct Drafting {
  drafter::Drafter* drafter = nullptr;  // null: nobody
  /// Of every request, as far as rows and pages are free, until a control says otherwise.
  drafter::DraftShape shape;
  /// At temperature above 0 drafts see the noise that tokens will be chosen with. False: they go by
  /// probability alone, for comparisons.
  bool shared_noise = true;
  /// Chooses a shape for every step instead, until a control says otherwise; needs a drafter whose
  /// scores are chances (MergedDrafter).
  DraftPlanner* planner = nullptr;
  /// For benchmarks that pretend to have a better drafter (runtime/bench/simulated_acceptance.h):
  /// may change the tokens chosen after a tree's root and nodes. Null: they are the model's.
  std::function<void(const drafter::TokenTree&, std::span<std::int32_t>)> override_choices = {};
};

/// A step that has been laid out. On a device it may be under way while the next one is planned;
/// requests that it samples for may have been removed when its results come.
struct LaidOutStep {
  StepPlan plan;
  PackedBatch batch;
  bool all_greedy = false;  // the batch's choices
  DecisionHash decisions;
  std::string_view phase;
  /// Of the plan's generation rows. Where they are made on the device they come with the results.
  std::vector<drafter::TokenTree> trees;
  bool trees_on_device = false;
  std::vector<std::size_t> drafted;            // the generation rows that a draft was asked for
  drafter::DraftLayout draft;                  // where it was made on the device
  std::unique_ptr<kernels::Readback> results;  // the draft, then AcceptedPath [sampled]

  /// Empty for a prompt.
  const drafter::TokenTree& tree_of(const SampledSequence& sampled) const {
    static const drafter::TokenTree kNone;
    return sampled.tree < 0 ? kNone : trees[static_cast<std::size_t>(sampled.tree)];
  }
};

/// One rank's engine: runs requests in packed steps. All ranks of a replica construct it alike and
/// call `step` in turn; only the leader's control counts.
class Engine {
 public:
  Engine(LlamaModel& model, kernels::Backend& backend, parallel::Communicator& communicator,
         const SchedulerLimits& limits, const kernels::KvPool& cache, EngineHooks hooks,
         Drafting drafting = {});

  /// One step (runtime/engine/step.cc shows it whole). The events returned are this step's own or,
  /// where a device has been given it and the host goes on, those of the step before; they are
  /// known to be equal on all ranks once the next call returns. After a control with `stop` the
  /// step is empty, and no other may follow.
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
  void set_shape(const drafter::DraftShape& shape);
  drafter::DraftShape with_room(drafter::DraftShape shape) const;
  drafter::DraftShape next_shape();
  bool keeps_trees_on_device(const drafter::DraftShape& shape) const;
  bool can_run_ahead(const drafter::DraftShape& shape) const;
  LaidOutStep& next_step() { return steps_[static_cast<std::size_t>(first_ + under_way_) % 2]; }

  std::vector<drafter::DraftRequest> draft_requests(LaidOutStep& step) const;
  kernels::SamplingRow draft_sampling(const Sequence& sequence) const;
  void lay_out(LaidOutStep& step, bool on_device);
  std::vector<std::int32_t> plan_draft(LaidOutStep& step);
  void draft(LaidOutStep& step);
  void count_as_fed(LaidOutStep& step);

  // What the device does (runtime/engine/step_ops.cc).
  void upload(LaidOutStep& step);
  void run(const LaidOutStep& step, kernels::FunctionRef<void()> ops);
  void place_trees(const LaidOutStep& step);
  const float* logits(const LaidOutStep& step, const float* hidden);
  void select(const LaidOutStep& step, const float* logits);
  void override_choices(const LaidOutStep& step);
  void accept(const LaidOutStep& step);
  void start_readback(LaidOutStep& step);

  std::vector<TokenEvent> record();
  std::vector<kernels::AcceptedPath> read_results(LaidOutStep& step);
  drafter::Accepted accepted_of(const drafter::TokenTree& tree,
                                const kernels::AcceptedPath& path) const;
  void append_accepted(Sequence& sequence, const drafter::Accepted& accepted,
                       std::vector<TokenEvent>& events);
  void count_acceptance(const drafter::TokenTree& tree, const drafter::Accepted& accepted);
  EndReason end_after(const Sequence& sequence, std::int32_t generated, std::int32_t token) const;

  LlamaModel& model_;
  kernels::Backend& backend_;
  EngineHooks hooks_;
  Agreement agreement_;
  Drafting drafting_;
  Scheduler scheduler_;
  kernels::KvPool cache_;
  drafter::DeviceDrafter* device_drafter_ = nullptr;  // null: the host sees trees before the step
  bool may_run_ahead_ = false;
  std::array<LaidOutStep, 2> steps_;  // those under way, from first_ on, then one that is not
  int first_ = 0;
  int under_way_ = 0;
  std::vector<drafter::TokenTree> drafts_;  // as the drafter gave them
  kernels::Buffer states_;    // [max_sequences, hidden]: of each sequence's last accepted row
  kernels::Buffer heads_;     // SequenceHead [max_sequences]: where the last step left them
  kernels::Buffer sampling_;  // SamplingRow [R]
  kernels::Buffer tokens_;    // int32 [R]: chosen
  kernels::Buffer stop_tokens_;
  // Of the batch's sampled sequences, as kernels::AcceptPathsParams has them.
  kernels::Buffer accept_plans_, tree_tokens_, tree_parents_, accepted_paths_, last_rows_;
  kernels::Buffer places_, resumes_;  // as PackedBatch has them
  std::uint64_t last_decisions_ = 0;
  bool stopped_ = false;
  EngineStats stats_;
};

}  // namespace paceline::runtime
