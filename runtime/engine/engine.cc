#include "runtime/engine/engine.h"

#include <algorithm>
#include <utility>

#include "drafter/acceptance.h"
#include "kernels/core/device_memory.h"
#include "kernels/core/error.h"

namespace paceline::runtime {

Engine::Engine(LlamaModel& model, kernels::Backend& backend, parallel::Communicator& communicator,
               const SchedulerLimits& limits, const kernels::KvPool& cache, EngineHooks hooks,
               Drafting drafting)
    : model_(model),
      backend_(backend),
      hooks_(std::move(hooks)),
      agreement_(communicator, hooks_.terminate),
      drafting_(std::move(drafting)),
      scheduler_(limits),
      cache_(cache) {
  check(limits.num_pages == cache.num_pages && limits.page_size == cache.page_size,
        "the scheduler and the cache differ in their pages");
  set_shape(drafting.shape);
  const auto width = static_cast<std::size_t>(model.config().hidden_size);
  states_ =
      backend.allocate(static_cast<std::size_t>(limits.max_sequences) * width * sizeof(float));
}

// The shape of every draft from now on.
void Engine::set_shape(const drafter::DraftShape& shape) {
  drafter::check_shape(shape);
  drafting_.shape = with_room(shape);
}

// With the nodes that the scheduler has to reserve for a draft; none if nobody drafts.
drafter::DraftShape Engine::with_room(drafter::DraftShape shape) const {
  if (drafting_.drafter == nullptr || shape.depth == 0) return {};
  shape.max_nodes = drafting_.drafter->most_nodes(shape);
  return shape.max_nodes > 0 ? shape : drafter::DraftShape{};
}

drafter::DraftShape Engine::next_shape() {
  if (drafting_.planner == nullptr) return drafting_.shape;
  return with_room(drafting_.planner->shape(scheduler_.generating()));
}

// How tokens will be chosen, as far as drafts may know.
kernels::SamplingRow Engine::draft_sampling(const Sequence& sequence) const {
  kernels::SamplingRow sampling = sequence.sampling(0);
  if (!drafting_.shared_noise) sampling.temperature = 0;
  return sampling;
}

// Guesses a tree for each request in generation that has room for one, from the hidden state that
// gave its last token. The others' trees are empty.
void Engine::draft(const StepPlan& plan) {
  trees_.resize(plan.generation.size());
  for (drafter::TokenTree& tree : trees_) tree.clear();
  if (drafting_.drafter == nullptr) return;
  std::vector<drafter::DraftRequest> requests;
  std::vector<std::size_t> index;
  for (std::size_t i = 0; i < plan.generation.size(); ++i) {
    const PlannedRows& planned = plan.generation[i];
    if (planned.draft.max_nodes == 0) continue;
    const Sequence& sequence = *planned.sequence;
    index.push_back(i);
    requests.push_back({.tokens = sequence.tokens,
                        .hidden_row = sequence.hidden_row,
                        .sampling = draft_sampling(sequence),
                        .shape = planned.draft,
                        .max_depth = planned.max_depth});
  }
  if (requests.empty()) return;
  drafting_.drafter->draft({.hidden = states_.as<float>(), .requests = requests}, drafts_);
  for (std::size_t i = 0; i < index.size(); ++i) std::swap(trees_[index[i]], drafts_[i]);
  if (drafting_.planner == nullptr) return;
  std::int32_t prompt_rows = 0;
  for (const PlannedRows& planned : plan.context) prompt_rows += planned.rows;
  drafting_.planner->cut(trees_, prompt_rows);
}

EngineStats Engine::stats() const {
  EngineStats stats = stats_;
  stats.preemptions = scheduler_.preemptions();
  if (drafting_.drafter != nullptr) {
    stats.non_finite_drafts = drafting_.drafter->stats().non_finite;
  }
  return stats;
}

void Engine::apply(const Control& control) {
  check(!stopped_, "a step after the last one");
  for (const EngineRequest& request : control.admit) scheduler_.add(request);
  for (const std::uint64_t uid : control.cancel) scheduler_.remove(uid);
  if (control.draft) {
    drafting_.planner = nullptr;
    set_shape(*control.draft);
  }
  stopped_ = control.stop;
}

// Of the rows that a token is chosen for. Where all are greedy each rank keeps to its part of the
// vocabulary.
const float* Engine::logits(const float* hidden) {
  all_greedy_ = std::ranges::none_of(
      batch_.sampling, [](const kernels::SamplingRow& row) { return row.temperature > 0; });
  const auto rows = std::ssize(batch_.sampled_rows);
  return all_greedy_ ? model_.part_of_logits(hidden, rows) : model_.logits(hidden, rows);
}

std::vector<std::int32_t> Engine::select(const float* logits) {
  const std::size_t rows = batch_.sampling.size();
  std::vector<std::int32_t> tokens(rows);
  if (rows == 0) return tokens;
  if (all_greedy_) {
    model_.largest(logits, tokens.data(), std::ssize(tokens));
  } else {
    backend_.select_tokens(
        {.logits = logits,
         .sampling = kernels::upload<kernels::SamplingRow>(backend_, sampling_, batch_.sampling),
         .tokens = kernels::reserve<std::int32_t>(backend_, tokens_, std::ssize(tokens)),
         .rows = static_cast<std::int64_t>(rows),
         .vocab = model_.config().vocab_size});
    backend_.download(tokens.data(), tokens_.as<void>(), rows * sizeof(std::int32_t));
  }
  if (drafting_.override_choices) {
    for (const SampledSequence& sampled : batch_.sampled) {
      drafting_.override_choices(
          *sampled.tree,
          std::span(tokens).subspan(static_cast<std::size_t>(sampled.first),
                                    static_cast<std::size_t>(sampled.tree->size()) + 1));
    }
  }
  return tokens;
}

EndReason Engine::end_after(const Sequence& sequence, std::int32_t generated,
                            std::int32_t token) const {
  if (token < 0) return EndReason::kNonFinite;
  const auto& eos = model_.config().eos_token_ids;
  if (!sequence.request.ignore_eos && std::binary_search(eos.begin(), eos.end(), token)) {
    return EndReason::kStop;
  }
  return generated == sequence.request.max_new_tokens ? EndReason::kLength : EndReason::kNone;
}

// Appends what was accepted. The keys and values of the accepted nodes, which wait in the slots of
// their nodes, move to those of their positions; the last token is sampled and not fed yet.
//
// Example: 9 known tokens, the tree a(b, c), a and c accepted, then t sampled: a is in place in
// slot 9, c moves from slot 11 to 10, 11 tokens are computed and t is pending.
void Engine::append_accepted(const SampledSequence& sampled, const drafter::Accepted& accepted,
                             std::vector<TokenEvent>& events) {
  Sequence& sequence = *sampled.sequence;
  const std::int32_t length = sequence.length();
  for (const std::int32_t token : accepted.tokens) {
    const EndReason reason = end_after(sequence, sequence.generated() + 1, token);
    if (token >= 0) sequence.tokens.push_back(token);
    events.push_back({sequence.request.uid, token, reason});
  }
  for (std::size_t depth = 0; depth < accepted.nodes.size(); ++depth) {
    const std::int32_t to = length + static_cast<std::int32_t>(depth);
    const std::int32_t from = length + accepted.nodes[depth];
    if (from != to) moves_.push_back({sampled.table_row, from, to});
  }
  sequence.computed += static_cast<std::int32_t>(accepted.nodes.size());
  sequence.hidden_row = static_cast<std::int32_t>(state_rows_.size());
  state_rows_.push_back(sampled.first + accepted.last_row());
}

void Engine::count_acceptance(const drafter::TokenTree& tree, const drafter::Accepted& accepted) {
  std::int32_t deepest = 0;
  for (const drafter::TreeNode& node : tree.nodes()) deepest = std::max(deepest, node.depth);
  for (std::int32_t depth = 0; depth < deepest; ++depth) {
    ++stats_.drafted_at[static_cast<std::size_t>(depth)];
  }
  for (std::size_t depth = 0; depth < accepted.nodes.size(); ++depth) {
    ++stats_.accepted_at[depth];
  }
  stats_.tree_rows += tree.size();
  stats_.generation_rows += tree.size();
  stats_.saved_rows += tree.saved_rows;
}

// Compacts the cache and keeps the hidden state of each sequence's last accepted row.
void Engine::settle(const float* hidden) {
  if (!moves_.empty()) {
    kernels::upload<kernels::KvMove>(backend_, moves_memory_, moves_);
    backend_.compact_kv({.kv = cache_,
                         .page_table = model_.page_table(),
                         .moves = moves_memory_.as<kernels::KvMove>(),
                         .count = static_cast<std::int64_t>(moves_.size())});
  }
  if (drafting_.drafter == nullptr) return;
  kernels::upload<std::int32_t>(backend_, state_rows_memory_, state_rows_);
  backend_.gather_rows({.in = hidden,
                        .index = state_rows_memory_.as<std::int32_t>(),
                        .out = states_.as<float>(),
                        .rows = static_cast<std::int64_t>(state_rows_.size()),
                        .width = model_.config().hidden_size});
}

std::vector<TokenEvent> Engine::accept(const StepPlan& plan, const float* hidden,
                                       const std::vector<std::int32_t>& tokens) {
  DecisionHash decisions;
  moves_.clear();
  state_rows_.clear();
  for (const PlannedRows& planned : plan.context) {
    planned.sequence->computed += planned.rows;
    stats_.context_rows += planned.rows;
    decisions.add(planned.sequence->request.uid);
    decisions.add(static_cast<std::uint64_t>(planned.rows));
  }
  for (const PlannedRows& planned : plan.generation) {
    planned.sequence->computed += planned.rows;
    stats_.generation_rows += planned.rows;
  }

  std::vector<TokenEvent> events;
  events.reserve(tokens.size());
  for (const SampledSequence& sampled : batch_.sampled) {
    const Sequence& sequence = *sampled.sequence;
    const auto chosen =
        std::span(tokens).subspan(static_cast<std::size_t>(sampled.first),
                                  static_cast<std::size_t>(sampled.tree->size()) + 1);
    std::int32_t generated = sequence.generated();
    const drafter::Accepted accepted =
        drafter::accept(*sampled.tree, chosen, [&](std::int32_t token) {
          return end_after(sequence, ++generated, token) != EndReason::kNone;
        });
    count_acceptance(*sampled.tree, accepted);
    if (!sampled.tree->empty()) {
      drafting_.drafter->learn(*sampled.tree, accepted, draft_sampling(sequence));
    }
    append_accepted(sampled, accepted, events);
  }
  settle(hidden);
  for (const TokenEvent& event : events) {
    decisions.add(event.uid);
    decisions.add(static_cast<std::uint64_t>(static_cast<std::uint32_t>(event.token)));
    if (event.end != EndReason::kNone) scheduler_.remove(event.uid);
  }
  ++stats_.steps;
  stats_.sampled_tokens += static_cast<std::int64_t>(events.size());
  stats_.peak_pages =
      std::max(stats_.peak_pages, scheduler_.pages().size() - scheduler_.pages().free_pages());
  last_decisions_ = decisions.value();
  return events;
}

}  // namespace paceline::runtime
