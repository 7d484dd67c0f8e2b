#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "runtime/engine/engine.h"
#include "runtime/job/answer.h"
#include "runtime/job/work.h"
#include "runtime/tokenizer/tokenizer.h"

namespace paceline::runtime {

/// How a replica's run ended.
enum class RunEnd { kDone, kTerminated };

/// Runs the leader's side of a replica until the source is exhausted and every request has ended,
/// or until one of its ranks asks for termination: running requests are dropped then, finished ones
/// reported. A result is reported only once all ranks have agreed on the step that completed it.
class ReplicaLeader {
 public:
  /// `tokenizer` may be null, see GrowingAnswer.
  ReplicaLeader(Engine& engine, const Tokenizer* tokenizer, WorkSource& source);
  RunEnd run();

 private:
  Control next_control();
  void digest(const std::vector<TokenEvent>& events);

  Engine& engine_;
  const Tokenizer* tokenizer_;
  WorkSource& source_;
  std::map<std::uint64_t, GrowingAnswer> answers_;  // by uid
  std::vector<WorkResult> unconfirmed_;             // completed in the last step
  std::vector<std::uint64_t> cancels_;  // ended by a stop string: the engine must be told
  std::uint64_t next_uid_ = 0;
};

/// The other ranks' side: follows the leader's control until it stops.
RunEnd follow(Engine& engine);

}  // namespace paceline::runtime
