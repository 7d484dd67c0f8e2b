#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/engine/sequence.h"
#include "runtime/engine/wire.h"

namespace paceline::runtime {

/// A request as a replica gets it: tokens instead of text, every default filled in.
struct WorkItem {
  std::int64_t index = 0;  // of the request in the input, from 0
  std::vector<std::int32_t> prompt;
  std::int32_t max_new_tokens = 0;
  float temperature = 0;
  std::int32_t top_k = 0;
  float top_p = 1;
  std::uint64_t seed = 0;
  std::vector<std::string> stop;
  bool speculative = true;
};

/// What came of it.
struct WorkResult {
  std::int64_t index = 0;
  std::vector<std::int32_t> token_ids;  // end-of-sequence included
  std::string text;                     // special tokens and the stop string left out
  EndReason end = EndReason::kNone;
  std::int64_t steps = 0;                 // forwards that gave at least one token
  std::vector<std::int64_t> accepted_at;  // by depth from 1: drafted tokens that were accepted
  double ttft_ms = 0;                     // from the replica's taking it to its first token
};

void encode_work(const std::vector<WorkItem>& items, WireWriter& writer);
std::vector<WorkItem> decode_work(WireReader& reader);
void encode_result(const WorkResult& result, WireWriter& writer);
WorkResult decode_result(WireReader& reader);

/// Where a replica's leader gets its work and leaves what came of it.
class WorkSource {
 public:
  virtual ~WorkSource() = default;
  /// Up to `wanted` further requests, maybe none yet. Never waits.
  virtual std::vector<WorkItem> take(std::size_t wanted) = 0;
  /// No further request will come.
  virtual bool exhausted() const = 0;
  virtual void report(WorkResult result) = 0;
  /// Called once a step: what the source does beside (rank 0 serves the other replicas).
  virtual void serve() {}
};

}  // namespace paceline::runtime
