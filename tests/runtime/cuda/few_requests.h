#pragma once

#include <vector>

#include "tests/runtime/engine/rule_drafters.h"

namespace paceline::runtime {

/// Fewer and shorter than mixed_requests(): threads on the CPU are slow.
inline std::vector<EngineRequest> few_requests() {
  std::vector<EngineRequest> few = mixed_requests();
  few.erase(few.begin() + 5, few.end());
  for (EngineRequest& request : few) request.max_new_tokens = 9;
  return few;
}

/// Of a tiny model with int4 weights.
inline Answers answers_of(kernels::Backend& backend, parallel::Communicator& communicator,
                          const Drafting& drafting, EngineStats* stats = nullptr) {
  FixtureRank rank("llama_int4", {.kv = kernels::KvFormat::kBf16, .limits = kAmple}, backend,
                   communicator, drafting);
  Answers answers = run_to_end(rank.engine(), few_requests());
  if (stats != nullptr) *stats = rank.engine().stats();
  return answers;
}

}  // namespace paceline::runtime
