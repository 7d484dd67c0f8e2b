#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/engine/engine.h"
#include "runtime/job/work.h"
#include "runtime/tokenizer/tokenizer.h"

namespace paceline::runtime {

/// Watches a growing text for stop strings. Of several that a token completes at once, the one that
/// begins first cuts the text.
class StopStrings {
 public:
  explicit StopStrings(std::vector<std::string> stops);
  /// Where to cut `text`, if a stop string is complete in it. Only what was appended since the last
  /// call is searched (with as much before it as a stop string may reach back).
  std::optional<std::size_t> find(const std::string& text);

 private:
  std::vector<std::string> stops_;
  std::size_t longest_ = 0;
  std::size_t searched_ = 0;  // no stop string ends before here
};

/// One running request's answer as it grows, on its replica's leader.
class GrowingAnswer {
 public:
  /// `tokenizer` may be null for a model directory without one: the text stays empty.
  GrowingAnswer(const WorkItem& item, const Tokenizer* tokenizer);

  /// Takes one sampled token. True if the answer is complete: the event said so, or the token
  /// completed a stop string.
  bool push(const TokenEvent& event);
  /// Counts one forward that gives the request at least one token: those that are pushed next, the
  /// first chosen at the tree's root, the others after accepted nodes.
  void count_step() {
    ++result_.steps;
    step_tokens_ = 0;
  }
  /// Only after push returned true.
  WorkResult take();

 private:
  std::optional<StreamDecoder> decoder_;
  StopStrings stops_;
  WorkResult result_;
  std::size_t step_tokens_ = 0;
  std::chrono::steady_clock::time_point taken_ = std::chrono::steady_clock::now();
};

}  // namespace paceline::runtime
