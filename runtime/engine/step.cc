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
// are empty, and this is autoregressive decoding. A device does what is inside of `run` on its own;
// the host waits for it in `record`, and in `draft` for the trees.
std::vector<TokenEvent> Engine::step(const Control& mine) {
  PhaseClock clock;
  hooks_.enter_phase("wait");
  const Control control = agreement_.exchange(mine, last_decisions_);
  clock.lap(stats_.time.agree);

  apply(control);
  if (stopped_) return {};
  const StepPlan plan = scheduler_.plan(next_shape());
  if (plan.empty()) {
    last_decisions_ = 0;
    return {};
  }
  clock.lap(stats_.time.plan);

  hooks_.enter_phase("draft");
  draft(plan);
  clock.lap(stats_.time.draft);

  hooks_.enter_phase(plan.context.empty() ? "decode" : "prefill");
  pack(plan, trees_, batch_);
  upload();
  run([&] {
    const float* hidden = model_.compute(batch_, cache_);
    const float* logits = this->logits(hidden);
    clock.lap(stats_.time.forward);
    select(logits);
    clock.lap(stats_.time.select);
    if (!drafting_.override_choices) accept();
  });
  if (drafting_.override_choices) {
    override_choices();
    accept();
  }
  std::vector<TokenEvent> events = record(plan);
  clock.lap(stats_.time.accept);
  return events;
}

}  // namespace paceline::runtime
