#include "runtime/engine/engine.h"

#include <algorithm>
#include <utility>

#include "kernels/core/error.h"

namespace paceline::runtime {

Engine::Engine(LlamaModel& model, kernels::Backend& backend, parallel::Communicator& communicator,
               const SchedulerLimits& limits, const kernels::KvPool& cache, EngineHooks hooks)
    : model_(model),
      backend_(backend),
      hooks_(std::move(hooks)),
      agreement_(communicator, hooks_.terminate),
      scheduler_(limits),
      cache_(cache),
      sampling_(backend.allocate(static_cast<std::size_t>(limits.max_sequences) *
                                 sizeof(kernels::SamplingRow))),
      tokens_(
          backend.allocate(static_cast<std::size_t>(limits.max_sequences) * sizeof(std::int32_t))) {
  check(limits.num_pages == cache.num_pages && limits.page_size == cache.page_size,
        "the scheduler and the cache differ in their pages");
}

EngineStats Engine::stats() const {
  EngineStats stats = stats_;
  stats.preemptions = scheduler_.preemptions();
  return stats;
}

void Engine::apply(const Control& control) {
  check(!stopped_, "a step after the last one");
  for (const EngineRequest& request : control.admit) scheduler_.add(request);
  for (const std::uint64_t uid : control.cancel) scheduler_.remove(uid);
  stopped_ = control.stop;
}

std::vector<std::int32_t> Engine::select(const float* logits) {
  const std::size_t rows = batch_.sampling.size();
  std::vector<std::int32_t> tokens(rows);
  if (rows == 0) return tokens;
  backend_.upload(sampling_.as<void>(), batch_.sampling.data(),
                  rows * sizeof(kernels::SamplingRow));
  backend_.select_tokens({.logits = logits,
                          .sampling = sampling_.as<kernels::SamplingRow>(),
                          .tokens = tokens_.as<std::int32_t>(),
                          .rows = static_cast<std::int64_t>(rows),
                          .vocab = model_.config().vocab_size});
  backend_.download(tokens.data(), tokens_.as<void>(), rows * sizeof(std::int32_t));
  return tokens;
}

EndReason Engine::end_after(const Sequence& sequence, std::int32_t token) const {
  if (token < 0) return EndReason::kNonFinite;
  const auto& eos = model_.config().eos_token_ids;
  if (!sequence.request.ignore_eos && std::binary_search(eos.begin(), eos.end(), token)) {
    return EndReason::kStop;
  }
  if (sequence.generated() == sequence.request.max_new_tokens) return EndReason::kLength;
  return EndReason::kNone;
}

std::vector<TokenEvent> Engine::accept(const StepPlan& plan,
                                       const std::vector<std::int32_t>& tokens) {
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
  events.reserve(tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    Sequence& sequence = *batch_.sampled[i];
    if (tokens[i] >= 0) sequence.tokens.push_back(tokens[i]);
    const EndReason end = end_after(sequence, tokens[i]);
    events.push_back({sequence.request.uid, tokens[i], end});
    decisions.add(sequence.request.uid);
    decisions.add(static_cast<std::uint64_t>(static_cast<std::uint32_t>(tokens[i])));
  }
  ++stats_.steps;
  stats_.sampled_tokens += static_cast<std::int64_t>(events.size());
  stats_.peak_pages =
      std::max(stats_.peak_pages, scheduler_.pages().size() - scheduler_.pages().free_pages());
  for (const TokenEvent& event : events) {
    if (event.end != EndReason::kNone) scheduler_.remove(event.uid);
  }
  last_decisions_ = decisions.value();
  return events;
}

}  // namespace paceline::runtime
