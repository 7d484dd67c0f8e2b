#include <utility>

#include "runtime/engine/engine.h"

namespace paceline::runtime {
namespace {

/// Adds the time since it was last asked to one phase after the other.
class PhaseClock {
 public:
  void lap(double& phase) {
    const auto now = std::chrono::steady_clock::now();
    phase += std::chrono::duration<double>(now - last_).count();
    last_ = now;
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace

// The whole algorithm: agree on what came in; plan; guess a tree of next tokens for every request
// in generation; feed prompt chunks, last tokens and trees as one packed batch; choose a token at
// every node; accept the path on which the guesses equal the choices. Without a drafter the trees
// are empty, and this is autoregressive decoding. A device does what is inside of `run` on its own,
// and the next step is planned meanwhile, for whatever this one comes to; where that cannot be, the
// host first waits for it.
std::vector<TokenEvent> Engine::step(const Control& mine) {
  PhaseClock clock;
  hooks_.enter_phase("wait");
  const Control control = agreement_.exchange(mine, std::exchange(last_decisions_, 0));
  clock.lap(stats_.time.agree);

  apply(control);
  if (stopped_) return {};
  const drafter::DraftShape shape = next_shape();
  std::vector<TokenEvent> events;
  if (under_way_ > 0 && !can_run_ahead(shape)) {
    events = record();
    clock.lap(stats_.time.accept);
    if (!keeps_trees_on_device(shape)) return events;  // no call returns two steps' events
  }

  const bool on_device = keeps_trees_on_device(shape);
  LaidOutStep& step = next_step();
  step.plan = scheduler_.plan(shape);
  if (step.plan.empty()) return events;
  clock.lap(stats_.time.plan);

  hooks_.enter_phase("draft");
  lay_out(step, on_device);
  clock.lap(stats_.time.draft);

  step.phase = step.plan.context.empty() ? "decode" : "prefill";
  hooks_.enter_phase(step.phase);
  upload(step);
  run(step, [&] {
    place_trees(step);
    const float* hidden = model_.compute(step.batch, cache_);
    const float* logits = this->logits(step, hidden);
    clock.lap(stats_.time.forward);
    select(step, logits);
    clock.lap(stats_.time.select);
    if (!drafting_.override_choices) accept(step);
  });
  if (drafting_.override_choices) {
    override_choices(step);
    accept(step);
  }
  start_readback(step);
  count_as_fed(step);
  if (under_way_ == 2) ++stats_.steps_ahead;
  if (under_way_ == 2 || !step.trees_on_device) events = record();
  clock.lap(stats_.time.accept);
  return events;
}

}  // namespace paceline::runtime
