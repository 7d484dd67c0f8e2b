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

/// A tiny model, and in which numbers it is computed.
struct FixtureNumbers {
  const char* model = "llama_int4";
  kernels::KvFormat kv = kernels::KvFormat::kBf16;
  kernels::AttentionMath attention = kernels::AttentionMath::kFp32;
};

inline Answers answers_of(kernels::Backend& backend, parallel::Communicator& communicator,
                          const Drafting& drafting, EngineStats* stats = nullptr,
                          const FixtureNumbers& numbers = {}) {
  FixtureRank rank(numbers.model,
                   {.kv = numbers.kv, .attention = numbers.attention, .limits = kAmple}, backend,
                   communicator, drafting);
  Answers answers = run_to_end(rank.engine(), few_requests());
  if (stats != nullptr) *stats = rank.engine().stats();
  return answers;
}

}  // namespace paceline::runtime
