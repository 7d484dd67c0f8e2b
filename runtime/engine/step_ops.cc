#include <algorithm>

#include "kernels/core/device_memory.h"
#include "runtime/engine/engine.h"

// The part of a step that is nothing but ops of the backend, and what goes there and comes back.

namespace paceline::runtime {

// All of the batch that the device reads. Where it repeats steps their sizes are rounded up.
void Engine::upload(LaidOutStep& step) {
  PackedBatch& batch = step.batch;
  if (model_.stays_on_device() && !backend_.shares_host_memory()) {
    const SchedulerLimits& limits = scheduler_.limits();
    pad(batch, limits.max_rows, std::max(limits.max_sampled, limits.max_sequences));
  }
  step.all_greedy = std::ranges::none_of(
      batch.sampling, [](const kernels::SamplingRow& row) { return row.temperature > 0; });
  model_.upload(batch);
  kernels::upload<kernels::SamplingRow>(backend_, sampling_, batch.sampling);
  kernels::upload<kernels::AcceptPlan>(backend_, accept_plans_, batch.accept);
  kernels::upload<std::int32_t>(backend_, tree_tokens_, batch.tree_tokens);
  kernels::upload<std::int32_t>(backend_, tree_parents_, batch.tree_parents);
  kernels::upload<kernels::TreePlace>(backend_, places_, batch.places);
  kernels::upload<kernels::ResumePlan>(backend_, resumes_, batch.resumes);
}

// Calls what a step does with the batch, or has the device repeat what it did for an earlier one of
// the same sizes.
void Engine::run(const LaidOutStep& step, kernels::FunctionRef<void()> ops) {
  if (!model_.stays_on_device()) return ops();
  const PackedBatch& batch = step.batch;
  std::vector<std::int64_t> key = model_.sizes(batch, cache_);
  key.insert(key.end(), {reinterpret_cast<std::intptr_t>(this), std::ssize(batch.sampled),
                         std::ssize(batch.places), std::ssize(batch.resumes),
                         step.all_greedy ? 1 : 0, drafting_.drafter != nullptr ? 1 : 0});
  if (!step.draft.index.empty()) {
    key.insert(key.end(), device_drafter_->key().begin(), device_drafter_->key().end());
  }
  backend_.repeat(key, ops);
}

// Where the step before has left the sequences that the host is behind with, and the trees that are
// made on the device, each at its place in the batch.
void Engine::place_trees(const LaidOutStep& step) {
  if (!step.trees_on_device) return;
  kernels::BatchArrays batch = model_.device_batch();
  batch.sampling = sampling_.as<kernels::SamplingRow>();
  batch.tree_tokens = tree_tokens_.as<std::int32_t>();
  batch.tree_parents = tree_parents_.as<std::int32_t>();
  batch.accept = accept_plans_.as<kernels::AcceptPlan>();
  const bool drafts = !step.draft.index.empty();
  backend_.resume_sequences({.plans = resumes_.as<kernels::ResumePlan>(),
                             .heads = heads_.as<kernels::SequenceHead>(),
                             .batch = batch,
                             .beams = drafts ? device_drafter_->plans() : nullptr,
                             .count = std::ssize(step.batch.resumes)});
  const drafter::DeviceTrees trees = drafts ? device_drafter_->search() : drafter::DeviceTrees{};
  backend_.place_trees({.places = places_.as<kernels::TreePlace>(),
                        .trees = trees.trees,
                        .nodes = trees.nodes,
                        .most_nodes = trees.most_nodes,
                        .batch = batch,
                        .count = std::ssize(step.batch.places)});
}

// Of the rows that a token is chosen for. Where all are greedy each rank keeps to its part of the
// vocabulary.
const float* Engine::logits(const LaidOutStep& step, const float* hidden) {
  const auto rows = std::ssize(step.batch.sampled_rows);
  return step.all_greedy ? model_.part_of_logits(hidden, rows) : model_.logits(hidden, rows);
}

// Chooses a token after every row with logits.
void Engine::select(const LaidOutStep& step, const float* logits) {
  const auto rows = std::ssize(step.batch.sampling);
  auto* chosen = kernels::reserve<std::int32_t>(backend_, tokens_, rows);
  if (rows == 0) return;
  if (step.all_greedy) {
    model_.largest(logits, chosen, rows);
  } else {
    backend_.select_tokens({.logits = logits,
                            .sampling = sampling_.as<kernels::SamplingRow>(),
                            .tokens = chosen,
                            .rows = rows,
                            .vocab = model_.config().vocab_size});
  }
}

void Engine::override_choices(const LaidOutStep& step) {
  std::vector<std::int32_t> tokens(step.batch.sampling.size());
  const std::size_t bytes = tokens.size() * sizeof(std::int32_t);
  backend_.download(tokens.data(), tokens_.as<void>(), bytes);
  for (const SampledSequence& sampled : step.batch.sampled) {
    const drafter::TokenTree& tree = step.tree_of(sampled);
    drafting_.override_choices(
        tree, std::span(tokens).subspan(static_cast<std::size_t>(sampled.first),
                                        static_cast<std::size_t>(tree.size()) + 1));
  }
  backend_.upload(tokens_.as<void>(), tokens.data(), bytes);
}

// Follows the chosen tokens through the trees, compacts the cache and keeps the hidden state of
// each sequence's last accepted row; the device does it when it comes to it. The keys and values of
// the accepted nodes, which wait in the slots of their nodes, move to those of their positions.
//
// Example: 9 known tokens, the tree a(b, c), a and c accepted, then t sampled: a is in place in
// slot 9, c moves from slot 11 to 10, 11 tokens are computed and t is pending.
void Engine::accept(const LaidOutStep& step) {
  const auto trees = std::ssize(step.batch.sampled);
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
                         .heads = heads_.as<kernels::SequenceHead>(),
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

// What the host wants to know of the step, behind it.
void Engine::start_readback(LaidOutStep& step) {
  std::vector<kernels::Readback::Part> parts;
  if (!step.draft.index.empty()) parts.push_back(device_drafter_->found());
  parts.push_back(
      {accepted_paths_.as<void>(), step.batch.sampled.size() * sizeof(kernels::AcceptedPath)});
  step.results->start(parts);
}

}  // namespace paceline::runtime
