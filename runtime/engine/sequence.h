#pragma once

#include <cstdint>
#include <vector>

#include "kernels/params.h"

namespace paceline::runtime {

/// What the engine needs to know of a request; text, templates and stop strings are its caller's.
struct EngineRequest {
  std::uint64_t uid = 0;  // unique within the engine's life
  std::vector<std::int32_t> prompt;
  std::int32_t max_new_tokens = 0;  // already clipped to the context
  float temperature = 0;
  std::int32_t top_k = 0;
  float top_p = 1;
  std::uint64_t seed = 0;
  bool ignore_eos = false;
  bool speculative = true;  // tokens may be guessed ahead
};

/// Why a request ended; kNonFinite: a logit that its next token hangs on is no number.
enum class EndReason : std::uint8_t { kNone, kStop, kLength, kNonFinite };

/// A request inside the engine. `tokens` are all tokens known so far, the prompt's first; the keys
/// and values of the first `computed` stand in the cache. At least one token is always pending, so
/// prefill, decoding and recomputation after preemption are one thing: feed what is pending and
/// sample after the last of it.
struct Sequence {
  EngineRequest request;
  std::vector<std::int32_t> tokens;
  std::vector<std::int32_t> pages;  // page of slots [i * page_size, (i + 1) * page_size)
  std::int32_t computed = 0;
  /// Where the hidden state of the row that gave the last token stands among those that the engine
  /// keeps; -1: none (before the first token, or after preemption).
  std::int32_t hidden_row = -1;
  /// Tokens that a step under way gives it at most; 0: it is in none, or that samples nothing for
  /// it. Then `tokens` are those before that step, all of them `computed`.
  std::int32_t awaited = 0;

  std::int32_t length() const { return static_cast<std::int32_t>(tokens.size()); }
  std::int32_t pending() const { return length() - computed; }
  std::int32_t generated() const {
    return length() - static_cast<std::int32_t>(request.prompt.size());
  }
  /// One row to feed, after the prompt: plain decoding.
  bool in_generation() const { return computed > 0 && pending() == (awaited > 0 ? 0 : 1); }
  /// Its length when the step under way has ended, at most.
  std::int32_t longest() const { return length() + awaited; }
  /// That step gives it its last token, whatever it finds.
  bool ends_for_sure() const { return awaited > 0 && generated() + 1 >= request.max_new_tokens; }

  /// How the token after the last known one (`depth` 0), or after a tree node of that depth, is
  /// chosen.
  kernels::SamplingRow sampling(std::int32_t depth) const {
    return {request.temperature, request.top_k, request.top_p, request.seed,
            static_cast<std::uint64_t>(length() + depth)};
  }
};

}  // namespace paceline::runtime
