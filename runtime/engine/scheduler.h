#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "drafter/drafter.h"
#include "runtime/engine/kv_pages.h"
#include "runtime/engine/sequence.h"

namespace paceline::runtime {

struct SchedulerLimits {
  std::int32_t max_sequences = 0;  // requests that run at once
  std::int32_t max_rows = 0;       // rows of one packed step
  std::int32_t page_size = 0;      // slots per page
  std::int32_t num_pages = 0;
  std::int32_t max_sampled = 0;  // rows of one step that may need logits; 0: max_sequences
};

/// One sequence's share of a step: its tokens [sequence->computed, sequence->computed + rows).
struct PlannedRows {
  Sequence* sequence = nullptr;
  std::int32_t rows = 0;
  /// The rows reach the sequence's last known token, so the step samples the next one.
  bool samples = false;
  /// Generation: rows and slots behind the last token that its draft tree may use.
  drafter::DraftShape draft = {};
  std::int32_t max_depth = 0;  // of a path in the tree: the tokens that the request can still take
};

/// What a step will compute: prompt chunks first, generation rows after.
struct StepPlan {
  std::vector<PlannedRows> context;
  std::vector<PlannedRows> generation;
  bool empty() const { return context.empty() && generation.empty(); }
  std::int32_t rows() const;
};

/// Decides which tokens of which requests are fed in a step (in-flight batching, Yu et al. 2022,
/// Orca) and keeps the pages they need (paged attention, Kwon et al. 2023). Deterministic: the same
/// calls in the same order give the same plans on every rank.
///
/// Requests are served in the order they came. Every running request in generation gets its row
/// first, so that a long prompt never delays the answers of others; what is left of the row budget
/// goes to prompt chunks, oldest request first. When pages run out the youngest running request is
/// preempted: its pages are freed and it waits, keeping its place and its tokens, to be recomputed.
/// Draft trees get rows, logits and pages that nothing else needs: they never cost a prompt more
/// than half of the rows, nor a request its pages.
class Scheduler {
 public:
  explicit Scheduler(const SchedulerLimits& limits);

  /// Pages that a request of `tokens` tokens holds at its end.
  std::int32_t pages_for(std::int32_t tokens) const;

  /// Queues a request. It must fit the pool on its own: pages_for(prompt + max_new_tokens - 1).
  void add(EngineRequest request);

  /// Ends a request, waiting or running, and frees its pages. Unknown ids are ignored: the request
  /// may have ended by itself in the same step.
  void remove(std::uint64_t uid);

  /// `shape` is what is to be drafted for every request in generation; its max_nodes are reserved
  /// as far as there is room, and planned.draft says what a tree may have.
  StepPlan plan(const drafter::DraftShape& shape = {});

  /// Whether a step can be planned while it is not known what the one before gives the sequences it
  /// samples for (Sequence::awaited): all that runs is in generation, nobody can be admitted, and
  /// there are pages for whatever comes.
  bool can_plan_ahead() const;

  /// Null if it has ended, or was never added.
  const Sequence* find(std::uint64_t uid) const { return lookup(uid); }
  Sequence* find(std::uint64_t uid) { return lookup(uid); }
  std::size_t running() const { return running_.size(); }
  /// Of the running ones, those past their prompts.
  std::int32_t generating() const;
  std::size_t waiting() const { return waiting_.size(); }
  const SchedulerLimits& limits() const { return limits_; }
  const KvPages& pages() const { return pages_; }
  std::int64_t preemptions() const { return preemptions_; }

 private:
  using ByArrival = std::map<std::uint64_t, std::unique_ptr<Sequence>>;

  Sequence* lookup(std::uint64_t uid) const;
  std::int32_t missing_pages(const Sequence& sequence, std::int32_t slots) const;
  bool reserve(std::uint64_t arrival, Sequence& sequence, std::int32_t slots);
  void preempt(ByArrival::iterator victim);
  void plan_generation(StepPlan& plan, std::int32_t& row_budget);
  bool prompts_wait() const;
  std::int32_t draft_rows(const StepPlan& plan, const drafter::DraftShape& shape,
                          std::int32_t row_budget) const;
  void plan_drafts(StepPlan& plan, const drafter::DraftShape& shape, std::int32_t rows);
  void trim_pages(Sequence& sequence);
  void plan_context(StepPlan& plan, std::int32_t& row_budget);
  void free_pages(Sequence& sequence);

  SchedulerLimits limits_;
  KvPages pages_;
  ByArrival running_;
  ByArrival waiting_;
  std::unordered_map<std::uint64_t, std::uint64_t> arrival_of_;  // uid -> arrival
  std::uint64_t next_arrival_ = 0;
  std::int64_t preemptions_ = 0;
};

}  // namespace paceline::runtime
