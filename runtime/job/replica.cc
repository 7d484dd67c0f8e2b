#include "runtime/job/replica.h"

#include <chrono>
#include <thread>

#include "kernels/core/error.h"

namespace paceline::runtime {

ReplicaLeader::ReplicaLeader(Engine& engine, const Tokenizer* tokenizer, WorkSource& source)
    : engine_(engine), tokenizer_(tokenizer), source_(source) {}

Control ReplicaLeader::next_control() {
  Control control;
  control.cancel = std::move(cancels_);
  cancels_.clear();
  if (engine_.termination_requested()) {
    control.stop = true;
    return control;
  }
  // A few requests beyond those that run, so that a place that frees up is filled at once.
  const auto room = static_cast<std::size_t>(engine_.max_sequences()) * 5 / 4 + 1;
  if (answers_.size() < room) {
    for (WorkItem& item : source_.take(room - answers_.size())) {
      const std::uint64_t uid = next_uid_++;
      answers_.emplace(uid, GrowingAnswer(item, tokenizer_));
      control.admit.push_back({.uid = uid,
                               .prompt = std::move(item.prompt),
                               .max_new_tokens = item.max_new_tokens,
                               .temperature = item.temperature,
                               .top_k = item.top_k,
                               .top_p = item.top_p,
                               .seed = item.seed});
    }
  }
  control.stop = answers_.empty() && source_.exhausted();
  return control;
}

// A request's tokens of one step stand together. What follows a stop string that one of them
// completes is dropped: plain decoding would not have come to it.
void ReplicaLeader::digest(const std::vector<TokenEvent>& events) {
  for (std::size_t i = 0; i < events.size();) {
    const std::uint64_t uid = events[i].uid;
    const auto answer = answers_.find(uid);
    check(answer != answers_.end(), "a token for request {}, which is not running", uid);
    answer->second.count_step();
    bool complete = false;
    for (; i < events.size() && events[i].uid == uid; ++i) {
      if (complete) continue;
      complete = answer->second.push(events[i]);
      if (complete && events[i].end == EndReason::kNone) cancels_.push_back(uid);
    }
    if (!complete) continue;
    unconfirmed_.push_back(answer->second.take());
    answers_.erase(answer);
  }
}

RunEnd ReplicaLeader::run() {
  using Clock = std::chrono::steady_clock;
  // An idle leader still steps now and then: the others wait for its word, with a deadline.
  constexpr auto kIdleStep = std::chrono::seconds(1);
  constexpr auto kPoll = std::chrono::microseconds(200);
  auto last_step = Clock::now();
  while (true) {
    source_.serve();
    Control control = next_control();
    const bool nothing_to_do = engine_.idle() && control.empty() && unconfirmed_.empty();
    if (nothing_to_do && Clock::now() - last_step < kIdleStep) {
      std::this_thread::sleep_for(kPoll);
      continue;
    }
    const bool stop = control.stop;
    std::vector<WorkResult> confirmed = std::move(unconfirmed_);
    unconfirmed_.clear();
    const std::vector<TokenEvent> events = engine_.step(control);
    last_step = Clock::now();
    for (WorkResult& result : confirmed) source_.report(std::move(result));
    if (stop) return engine_.termination_requested() ? RunEnd::kTerminated : RunEnd::kDone;
    digest(events);
  }
}

RunEnd follow(Engine& engine) {
  while (!engine.stopped()) engine.step({});
  return engine.termination_requested() ? RunEnd::kTerminated : RunEnd::kDone;
}

}  // namespace paceline::runtime
