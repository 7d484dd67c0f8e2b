#include "runtime/engine/scheduler.h"

#include <algorithm>

#include "kernels/core/error.h"

namespace paceline::runtime {

std::int32_t StepPlan::rows() const {
  std::int32_t rows = 0;
  for (const PlannedRows& planned : context) rows += planned.rows;
  for (const PlannedRows& planned : generation) rows += planned.rows;
  return rows;
}

Scheduler::Scheduler(const SchedulerLimits& limits) : limits_(limits), pages_(limits.num_pages) {
  check(limits.max_sequences > 0 && limits.max_rows >= limits.max_sequences,
        "a step of {} rows cannot hold one row for each of {} sequences", limits.max_rows,
        limits.max_sequences);
}

std::int32_t Scheduler::pages_for(std::int32_t tokens) const {
  return (tokens + limits_.page_size - 1) / limits_.page_size;
}

void Scheduler::add(EngineRequest request) {
  check(!request.prompt.empty(), "request {} has no prompt", request.uid);
  // The last token sampled is never fed, so it needs no slot.
  const auto fed = static_cast<std::int32_t>(request.prompt.size()) + request.max_new_tokens - 1;
  check(pages_for(fed) <= pages_.size(), "request {} needs {} pages of a cache of {}", request.uid,
        pages_for(fed), pages_.size());
  auto sequence = std::make_unique<Sequence>();
  sequence->tokens = request.prompt;
  sequence->tokens.reserve(static_cast<std::size_t>(fed) + 1);
  sequence->pages.reserve(static_cast<std::size_t>(pages_for(fed)));
  sequence->request = std::move(request);
  const bool is_new = arrival_of_.emplace(sequence->request.uid, next_arrival_).second;
  check(is_new, "request {} was added twice", sequence->request.uid);
  waiting_.emplace(next_arrival_++, std::move(sequence));
}

Sequence* Scheduler::lookup(std::uint64_t uid) const {
  const auto arrival = arrival_of_.find(uid);
  if (arrival == arrival_of_.end()) return nullptr;
  const auto running = running_.find(arrival->second);
  return running != running_.end() ? running->second.get() : waiting_.at(arrival->second).get();
}

void Scheduler::remove(std::uint64_t uid) {
  const auto arrival = arrival_of_.find(uid);
  if (arrival == arrival_of_.end()) return;
  if (const auto running = running_.find(arrival->second); running != running_.end()) {
    free_pages(*running->second);
    running_.erase(running);
  } else {
    waiting_.erase(arrival->second);
  }
  arrival_of_.erase(arrival);
}

void Scheduler::free_pages(Sequence& sequence) {
  // Backwards, so that the pages come back from the pool in the order they were taken in.
  for (auto page = sequence.pages.rbegin(); page != sequence.pages.rend(); ++page) {
    pages_.release(*page);
  }
  sequence.pages.clear();
}

std::int32_t Scheduler::generating() const {
  return static_cast<std::int32_t>(
      std::count_if(running_.begin(), running_.end(),
                    [](const auto& entry) { return entry.second->in_generation(); }));
}

std::int32_t Scheduler::missing_pages(const Sequence& sequence, std::int32_t slots) const {
  return std::max(0, pages_for(slots) - static_cast<std::int32_t>(sequence.pages.size()));
}

void Scheduler::preempt(ByArrival::iterator victim) {
  check(victim->second->awaited == 0, "request {} is preempted in the middle of a step",
        victim->second->request.uid);
  free_pages(*victim->second);
  victim->second->computed = 0;
  victim->second->hidden_row = -1;
  waiting_.emplace(victim->first, std::move(victim->second));
  running_.erase(victim);
  ++preemptions_;
}

// Takes the pages that the sequence's first `slots` slots need, preempting younger requests while
// the pool is short of them. False if only the sequence itself and older ones hold what is missing.
bool Scheduler::reserve(std::uint64_t arrival, Sequence& sequence, std::int32_t slots) {
  const std::int32_t missing = missing_pages(sequence, slots);
  while (pages_.free_pages() < missing) {
    const auto youngest = std::prev(running_.end());
    if (youngest->first <= arrival) return false;
    preempt(youngest);
  }
  for (std::int32_t i = 0; i < missing; ++i) sequence.pages.push_back(pages_.acquire());
  return true;
}

void Scheduler::plan_generation(StepPlan& plan, std::int32_t& row_budget) {
  // Oldest first, so that a preemption never takes what has already been planned.
  for (auto entry = running_.begin(); entry != running_.end();) {
    Sequence& sequence = *entry->second;
    if (!sequence.in_generation() || sequence.ends_for_sure()) {
      ++entry;
      continue;
    }
    if (!reserve(entry->first, sequence, sequence.longest())) {
      preempt(entry);  // it is the youngest itself
      break;
    }
    plan.generation.push_back({&sequence, 1, true});
    --row_budget;
    ++entry;
  }
}

void Scheduler::plan_context(StepPlan& plan, std::int32_t& row_budget) {
  const auto plan_chunk = [&](std::uint64_t arrival, Sequence& sequence) {
    const std::int32_t rows = std::min(sequence.pending(), row_budget);
    if (rows == 0 || missing_pages(sequence, sequence.computed + rows) > pages_.free_pages()) {
      return false;
    }
    const bool reserved = reserve(arrival, sequence, sequence.computed + rows);
    check(reserved, "request {} lost the pages it was promised", sequence.request.uid);
    plan.context.push_back({&sequence, rows, rows == sequence.pending()});
    row_budget -= rows;
    return true;
  };
  for (auto& [arrival, sequence] : running_) {
    // What an older prompt waits for is not given to a younger one.
    if (!sequence->in_generation() && !plan_chunk(arrival, *sequence)) return;
  }
  while (!waiting_.empty() && static_cast<std::int32_t>(running_.size()) < limits_.max_sequences) {
    const auto oldest = waiting_.begin();
    // Admitted only if all that it has to feed would fit: else it would be preempted again at once.
    if (missing_pages(*oldest->second, oldest->second->length()) > pages_.free_pages()) break;
    if (!plan_chunk(oldest->first, *oldest->second)) break;
    running_.insert(waiting_.extract(oldest));
  }
}

bool Scheduler::prompts_wait() const {
  return !waiting_.empty() || std::any_of(running_.begin(), running_.end(), [](const auto& entry) {
    return !entry.second->in_generation();
  });
}

// Rows set aside for drafts before prompts take theirs: half of what is left while prompts wait.
std::int32_t Scheduler::draft_rows(const StepPlan& plan, const drafter::DraftShape& shape,
                                   std::int32_t row_budget) const {
  const auto requests = static_cast<std::int32_t>(plan.generation.size());
  const std::int32_t sampled = std::max(limits_.max_sampled, limits_.max_sequences);
  const std::int32_t rows = prompts_wait() ? row_budget / 2 : row_budget;
  return std::min({rows, sampled - limits_.max_sequences, requests * shape.max_nodes});
}

// The same number of nodes for every request in generation, cut to what it can use: no path longer
// than the tokens that it may still give (the last of which is sampled, not drafted), and the slots
// of pages that are free without taking any from another.
void Scheduler::plan_drafts(StepPlan& plan, const drafter::DraftShape& shape, std::int32_t rows) {
  if (plan.generation.empty()) return;
  const std::int32_t share = rows / static_cast<std::int32_t>(plan.generation.size());
  for (PlannedRows& planned : plan.generation) {
    Sequence& sequence = *planned.sequence;
    const std::int32_t known = sequence.generated() + (sequence.awaited > 0 ? 1 : 0);
    planned.max_depth = sequence.request.max_new_tokens - known - 1;
    // The last row of a prompt's last chunk looks like generation, but has no state to draft from.
    const bool may_draft = shape.depth > 0 && planned.max_depth > 0 && sequence.hidden_row >= 0 &&
                           sequence.request.speculative;
    std::int32_t nodes = may_draft ? share : 0;
    while (missing_pages(sequence, sequence.longest() + nodes) > pages_.free_pages()) --nodes;
    if (nodes == 0) continue;
    const std::int32_t missing = missing_pages(sequence, sequence.longest() + nodes);
    for (std::int32_t i = 0; i < missing; ++i) sequence.pages.push_back(pages_.acquire());
    planned.draft = shape;
    planned.draft.max_nodes = nodes;
  }
}

// Gives back what the last step's tree held beyond the sequence itself.
void Scheduler::trim_pages(Sequence& sequence) {
  const auto needed = static_cast<std::size_t>(pages_for(sequence.longest()));
  while (sequence.pages.size() > needed) {
    pages_.release(sequence.pages.back());
    sequence.pages.pop_back();
  }
}

bool Scheduler::can_plan_ahead() const {
  std::int32_t free = pages_.free_pages();
  bool goes_on = false;
  for (const auto& [arrival, sequence] : running_) {
    if (!sequence->in_generation()) return false;
    free += static_cast<std::int32_t>(sequence->pages.size()) - pages_for(sequence->longest());
    goes_on = goes_on || !sequence->ends_for_sure();
  }
  if (!goes_on || free < 0) return false;
  if (waiting_.empty() || std::ssize(running_) == limits_.max_sequences) return true;
  const Sequence& oldest = *waiting_.begin()->second;
  return missing_pages(oldest, oldest.length()) > free;
}

StepPlan Scheduler::plan(const drafter::DraftShape& shape) {
  for (auto& [arrival, sequence] : running_) trim_pages(*sequence);
  StepPlan plan;
  std::int32_t row_budget = limits_.max_rows;
  plan_generation(plan, row_budget);
  const std::int32_t drafted = draft_rows(plan, shape, row_budget);
  row_budget -= drafted;
  plan_context(plan, row_budget);
  plan_drafts(plan, shape, drafted);
  if (plan.empty() && !running_.empty()) {
    // Only prompts are running and none of them gets a page: the oldest one takes the others'.
    const auto oldest = running_.begin();
    while (std::next(oldest) != running_.end()) preempt(std::prev(running_.end()));
    row_budget = limits_.max_rows;
    plan_context(plan, row_budget);
    check(!plan.empty(), "request {} cannot get a page in an empty cache",
          oldest->second->request.uid);
  }
  return plan;
}

}  // namespace paceline::runtime
