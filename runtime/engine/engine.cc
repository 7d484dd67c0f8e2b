#include "runtime/engine/engine.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "drafter/acceptance.h"
#include "kernels/core/device_memory.h"
#include "kernels/core/error.h"

namespace paceline::runtime {
namespace {

/// Rows up to which more of them, idle ones too, cost a step next to nothing: weights are read
/// once.
constexpr std::int64_t kFewRows = 64;

}  // namespace

Engine::Engine(LlamaModel& model, kernels::Backend& backend, parallel::Communicator& communicator,
               const SchedulerLimits& limits, const kernels::KvPool& cache, EngineHooks hooks,
               Drafting drafting)
    : model_(model),
      backend_(backend),
      hooks_(std::move(hooks)),
      agreement_(communicator, backend, hooks_.terminate),
      drafting_(std::move(drafting)),
      scheduler_(limits),
      cache_(cache) {
  check(limits.num_pages == cache.num_pages && limits.page_size == cache.page_size,
        "the scheduler and the cache differ in their pages");
  set_shape(drafting.shape);
  const auto width = static_cast<std::size_t>(model.config().hidden_size);
  kernels::upload<std::int32_t>(backend_, stop_tokens_, model.config().eos_token_ids);
  const auto sequences = static_cast<std::size_t>(limits.max_sequences);
  states_ = backend.allocate(sequences * width * sizeof(float));
  heads_ = backend.allocate(sequences * sizeof(kernels::SequenceHead));
  for (LaidOutStep& step : steps_) step.results = backend.make_readback();
  const bool asynchronous = model.stays_on_device() && !backend.shares_host_memory();
  if (!asynchronous || drafting_.override_choices) return;
  if (drafting_.drafter != nullptr) device_drafter_ = drafting_.drafter->on_device();
  may_run_ahead_ = drafting_.drafter == nullptr || device_drafter_ != nullptr;
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

// Whether trees are left where they are made. Then there are as many rows as the largest trees
// have, so it is done where rows are few; else the host looks how many there are.
bool Engine::keeps_trees_on_device(const drafter::DraftShape& shape) const {
  if (!may_run_ahead_ || drafting_.planner != nullptr) return false;
  const std::int64_t rows = std::int64_t{scheduler_.generating()} * (1 + shape.max_nodes);
  return shape.max_nodes == 0 || rows <= kFewRows;
}

// Whether the next step can be given to the device while the host does not know what the one under
// way comes to.
bool Engine::can_run_ahead(const drafter::DraftShape& shape) const {
  return keeps_trees_on_device(shape) && scheduler_.can_plan_ahead();
}

// Of each request in generation that has room for a tree.
std::vector<drafter::DraftRequest> Engine::draft_requests(LaidOutStep& step) const {
  std::vector<drafter::DraftRequest> requests;
  step.drafted.clear();
  if (drafting_.drafter == nullptr) return requests;
  for (std::size_t i = 0; i < step.plan.generation.size(); ++i) {
    const PlannedRows& planned = step.plan.generation[i];
    if (planned.draft.max_nodes == 0) continue;
    const Sequence& sequence = *planned.sequence;
    step.drafted.push_back(i);
    requests.push_back({.tokens = sequence.tokens,
                        .hidden_row = sequence.hidden_row,
                        .sampling = draft_sampling(sequence),
                        .shape = planned.draft,
                        .max_depth = planned.max_depth});
  }
  return requests;
}

// Lays the step out: with the trees that the host guesses now, from the hidden states that gave the
// requests' last tokens; or with room for those that the device will.
void Engine::lay_out(LaidOutStep& step, bool on_device) {
  step.trees.resize(step.plan.generation.size());
  for (drafter::TokenTree& tree : step.trees) tree.clear();
  step.draft = {};
  step.trees_on_device = on_device;
  if (on_device) {
    pack_for_device(step.plan, plan_draft(step), step.batch);
  } else {
    draft(step);
    pack(step.plan, step.trees, step.batch);
  }
}

// Returns for each request in generation where its tree will be among the device's; -1: nowhere.
std::vector<std::int32_t> Engine::plan_draft(LaidOutStep& step) {
  std::vector<std::int32_t> searches(step.plan.generation.size(), -1);
  const std::vector<drafter::DraftRequest> requests = draft_requests(step);
  if (requests.empty()) return searches;
  step.draft = device_drafter_->plan({.hidden = states_.as<float>(), .requests = requests});
  for (std::size_t search = 0; search < step.draft.index.size(); ++search) {
    searches[step.drafted[step.draft.index[search]]] = static_cast<std::int32_t>(search);
  }
  return searches;
}

void Engine::draft(LaidOutStep& step) {
  const std::vector<drafter::DraftRequest> requests = draft_requests(step);
  if (requests.empty()) return;
  drafting_.drafter->draft({.hidden = states_.as<float>(), .requests = requests}, drafts_);
  for (std::size_t i = 0; i < step.drafted.size(); ++i) {
    std::swap(step.trees[step.drafted[i]], drafts_[i]);
  }
  if (drafting_.planner == nullptr) return;
  std::int32_t prompt_rows = 0;
  for (const PlannedRows& planned : step.plan.context) prompt_rows += planned.rows;
  drafting_.planner->cut(step.trees, prompt_rows);
}

// The device has been given the step: its tokens count as fed, what it samples is awaited.
void Engine::count_as_fed(LaidOutStep& step) {
  step.decisions = {};
  auto sampled = step.batch.sampled.begin();
  for (const auto* group : {&step.plan.context, &step.plan.generation}) {
    for (const PlannedRows& planned : *group) {
      Sequence& sequence = *planned.sequence;
      sequence.computed += planned.rows;
      if (group == &step.plan.context) {
        step.decisions.add(sequence.request.uid);
        step.decisions.add(static_cast<std::uint64_t>(planned.rows));
      }
      if (!planned.samples) continue;
      sequence.hidden_row = static_cast<std::int32_t>(sampled - step.batch.sampled.begin());
      sequence.awaited += sampled->most_tokens;
      ++sampled;
    }
  }
  ++under_way_;
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

EndReason Engine::end_after(const Sequence& sequence, std::int32_t generated,
                            std::int32_t token) const {
  if (token < 0) return EndReason::kNonFinite;
  const auto& eos = model_.config().eos_token_ids;
  if (!sequence.request.ignore_eos && std::binary_search(eos.begin(), eos.end(), token)) {
    return EndReason::kStop;
  }
  return generated == sequence.request.max_new_tokens ? EndReason::kLength : EndReason::kNone;
}

// Appends what was accepted; the last token is sampled and not fed yet.
void Engine::append_accepted(Sequence& sequence, const drafter::Accepted& accepted,
                             std::vector<TokenEvent>& events) {
  for (const std::int32_t token : accepted.tokens) {
    const EndReason reason = end_after(sequence, sequence.generated() + 1, token);
    if (token >= 0) sequence.tokens.push_back(token);
    events.push_back({sequence.request.uid, token, reason});
  }
  sequence.computed += static_cast<std::int32_t>(accepted.nodes.size());
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

drafter::Accepted Engine::accepted_of(const drafter::TokenTree& tree,
                                      const kernels::AcceptedPath& path) const {
  drafter::Accepted accepted;
  accepted.nodes.assign(path.nodes, path.nodes + path.count);
  for (const std::int32_t node : accepted.nodes) {
    accepted.tokens.push_back(tree.nodes()[static_cast<std::size_t>(node)].token);
  }
  accepted.tokens.push_back(path.token);
  return accepted;
}

// The accepted path of each of the batch's sampled sequences, as soon as the device knows; their
// trees, where it has made them.
std::vector<kernels::AcceptedPath> Engine::read_results(LaidOutStep& step) {
  hooks_.enter_phase(step.phase);
  const std::byte* bytes = step.results->wait();
  if (!step.draft.index.empty()) {
    device_drafter_->read(step.draft, bytes, drafts_);
    for (std::size_t i = 0; i < step.drafted.size(); ++i) {
      std::swap(step.trees[step.drafted[i]], drafts_[i]);
    }
    bytes += step.draft.bytes;
  }
  std::vector<kernels::AcceptedPath> paths(step.batch.sampled.size());
  if (paths.empty()) return paths;
  std::memcpy(paths.data(), bytes, paths.size() * sizeof(kernels::AcceptedPath));
  return paths;
}

// What the oldest step under way came to.
std::vector<TokenEvent> Engine::record() {
  LaidOutStep& step = steps_[static_cast<std::size_t>(first_)];
  const std::vector<kernels::AcceptedPath> paths = read_results(step);
  first_ = 1 - first_;
  --under_way_;
  for (const PlannedRows& planned : step.plan.context) stats_.context_rows += planned.rows;
  for (const PlannedRows& planned : step.plan.generation) stats_.generation_rows += planned.rows;

  std::vector<TokenEvent> events;
  events.reserve(step.batch.sampling.size());
  for (std::size_t i = 0; i < paths.size(); ++i) {
    const SampledSequence& sampled = step.batch.sampled[i];
    Sequence* sequence = scheduler_.find(sampled.uid);
    if (sequence == nullptr) continue;  // it ended while this step was under way
    const drafter::TokenTree& tree = step.tree_of(sampled);
    const drafter::Accepted accepted = accepted_of(tree, paths[i]);
    count_acceptance(tree, accepted);
    if (!tree.empty()) drafting_.drafter->learn(tree, accepted, draft_sampling(*sequence));
    sequence->awaited -= sampled.most_tokens;
    append_accepted(*sequence, accepted, events);
  }
  for (const TokenEvent& event : events) {
    step.decisions.add(event.uid);
    step.decisions.add(static_cast<std::uint64_t>(static_cast<std::uint32_t>(event.token)));
    if (event.end != EndReason::kNone) scheduler_.remove(event.uid);
  }
  ++stats_.steps;
  stats_.sampled_tokens += static_cast<std::int64_t>(events.size());
  stats_.peak_pages =
      std::max(stats_.peak_pages, scheduler_.pages().size() - scheduler_.pages().free_pages());
  last_decisions_ = step.decisions.value();
  return events;
}

}  // namespace paceline::runtime
