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
  kernels::upload<std::int32_t>(backend_, stop_tokens_, model.config().eos_token_ids);
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

// All of the batch that the device reads. Where it repeats steps their sizes are rounded up.
void Engine::upload() {
  if (model_.stays_on_device() && !backend_.shares_host_memory()) {
    const SchedulerLimits& limits = scheduler_.limits();
    pad(batch_, limits.max_rows, std::max(limits.max_sampled, limits.max_sequences));
  }
  all_greedy_ = std::ranges::none_of(
      batch_.sampling, [](const kernels::SamplingRow& row) { return row.temperature > 0; });
  model_.upload(batch_);
  kernels::upload<kernels::SamplingRow>(backend_, sampling_, batch_.sampling);
  kernels::upload<kernels::AcceptPlan>(backend_, accept_plans_, batch_.accept);
  kernels::upload<std::int32_t>(backend_, tree_tokens_, batch_.tree_tokens);
  kernels::upload<std::int32_t>(backend_, tree_parents_, batch_.tree_parents);
}

// Calls what a step does with the batch, or has the device repeat what it did for an earlier one of
// the same sizes.
void Engine::run(kernels::FunctionRef<void()> ops) {
  if (!model_.stays_on_device()) return ops();
  std::vector<std::int64_t> key = model_.sizes(batch_, cache_);
  key.insert(key.end(), {reinterpret_cast<std::intptr_t>(this), std::ssize(batch_.sampled),
                         all_greedy_ ? 1 : 0, drafting_.drafter != nullptr ? 1 : 0});
  backend_.repeat(key, ops);
}

// Of the rows that a token is chosen for. Where all are greedy each rank keeps to its part of the
// vocabulary.
const float* Engine::logits(const float* hidden) {
  const auto rows = std::ssize(batch_.sampled_rows);
  return all_greedy_ ? model_.part_of_logits(hidden, rows) : model_.logits(hidden, rows);
}

// Chooses a token after every row with logits.
void Engine::select(const float* logits) {
  const auto rows = std::ssize(batch_.sampling);
  auto* chosen = kernels::reserve<std::int32_t>(backend_, tokens_, rows);
  if (rows == 0) return;
  if (all_greedy_) {
    model_.largest(logits, chosen, rows);
  } else {
    backend_.select_tokens({.logits = logits,
                            .sampling = sampling_.as<kernels::SamplingRow>(),
                            .tokens = chosen,
                            .rows = rows,
                            .vocab = model_.config().vocab_size});
  }
}

void Engine::override_choices() {
  std::vector<std::int32_t> tokens(batch_.sampling.size());
  const std::size_t bytes = tokens.size() * sizeof(std::int32_t);
  backend_.download(tokens.data(), tokens_.as<void>(), bytes);
  for (const SampledSequence& sampled : batch_.sampled) {
    drafting_.override_choices(
        *sampled.tree,
        std::span(tokens).subspan(static_cast<std::size_t>(sampled.first),
                                  static_cast<std::size_t>(sampled.tree->size()) + 1));
  }
  backend_.upload(tokens_.as<void>(), tokens.data(), bytes);
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

// Follows the chosen tokens through the trees, compacts the cache and keeps the hidden state of
// each sequence's last accepted row; the device does it when it comes to it. The keys and values of
// the accepted nodes, which wait in the slots of their nodes, move to those of their positions.
//
// Example: 9 known tokens, the tree a(b, c), a and c accepted, then t sampled: a is in place in
// slot 9, c moves from slot 11 to 10, 11 tokens are computed and t is pending.
void Engine::accept() {
  const auto trees = std::ssize(batch_.sampled);
  auto* paths = kernels::reserve<kernels::AcceptedPath>(backend_, accepted_paths_, trees);
  auto* last_rows = kernels::reserve<std::int32_t>(backend_, last_rows_, trees);
  backend_.accept_paths({.plans = accept_plans_.as<kernels::AcceptPlan>(),
                         .chosen = tokens_.as<std::int32_t>(),
                         .tokens = tree_tokens_.as<std::int32_t>(),
                         .parents = tree_parents_.as<std::int32_t>(),
                         .stop_tokens = stop_tokens_.as<std::int32_t>(),
                         .num_stop_tokens = std::ssize(model_.config().eos_token_ids),
                         .paths = paths,
                         .last_rows = last_rows,
                         .trees = trees});
  if (drafting_.drafter == nullptr) return;
  backend_.compact_kv(
      {.kv = cache_, .page_table = model_.page_table(), .paths = paths, .count = trees});
  backend_.gather_rows({.in = model_.hidden(),
                        .index = last_rows,
                        .out = states_.as<float>(),
                        .rows = trees,
                        .width = model_.config().hidden_size});
}

drafter::Accepted Engine::accepted_of(const SampledSequence& sampled,
                                      const kernels::AcceptedPath& path) const {
  drafter::Accepted accepted;
  accepted.nodes.assign(path.nodes, path.nodes + path.count);
  for (const std::int32_t node : accepted.nodes) {
    accepted.tokens.push_back(sampled.tree->nodes()[static_cast<std::size_t>(node)].token);
  }
  accepted.tokens.push_back(path.token);
  return accepted;
}

// Appends what was accepted; the last token is sampled and not fed yet.
void Engine::append_accepted(const SampledSequence& sampled, const drafter::Accepted& accepted,
                             std::vector<TokenEvent>& events) {
  Sequence& sequence = *sampled.sequence;
  for (const std::int32_t token : accepted.tokens) {
    const EndReason reason = end_after(sequence, sequence.generated() + 1, token);
    if (token >= 0) sequence.tokens.push_back(token);
    events.push_back({sequence.request.uid, token, reason});
  }
  sequence.computed += static_cast<std::int32_t>(accepted.nodes.size());
  sequence.hidden_row = static_cast<std::int32_t>(&sampled - batch_.sampled.data());
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

// What the step came to, as soon as the device knows.
std::vector<TokenEvent> Engine::record(const StepPlan& plan) {
  paths_.resize(batch_.sampled.size());
  backend_.download(paths_.data(), accepted_paths_.as<void>(),
                    paths_.size() * sizeof(kernels::AcceptedPath));
  DecisionHash decisions;
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
  events.reserve(batch_.sampling.size());
  for (std::size_t i = 0; i < paths_.size(); ++i) {
    const SampledSequence& sampled = batch_.sampled[i];
    const drafter::Accepted accepted = accepted_of(sampled, paths_[i]);
    count_acceptance(*sampled.tree, accepted);
    if (!sampled.tree->empty()) {
      drafting_.drafter->learn(*sampled.tree, accepted, draft_sampling(*sampled.sequence));
    }
    append_accepted(sampled, accepted, events);
  }
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
