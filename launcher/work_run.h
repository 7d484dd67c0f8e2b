#pragma once

#include <functional>
#include <vector>

#include "launcher/command_line.h"
#include "launcher/deployment.h"
#include "launcher/options.h"
#include "runtime/job/exchange.h"
#include "runtime/tokenizer/tokenizer.h"

namespace paceline::launcher {

/// What an engine schedules within; `shape` is that of its drafts.
runtime::SchedulerLimits scheduler_limits(const BatchOptions& batch, std::int32_t num_pages,
                                          const drafter::DraftShape& shape);

/// Work for the engines of all replicas.
struct WorkRun {
  runtime::SchedulerLimits limits;
  const runtime::Tokenizer* tokenizer = nullptr;  ///< on replicas' leaders; null: no texts
  /// On rank 0. After a signal to any rank no further request is asked for.
  runtime::WorkServer::Callbacks callbacks = {};
  /// On rank 0, now and then.
  std::function<void(const std::vector<runtime::ReplicaReport>&)> tick = {};
};

/// Runs the engines on the loaded model until all work is done or a signal ends it; all ranks call
/// it. On rank 0 the replicas' reports are given back, each with how it ended; on others nothing.
std::vector<runtime::ReplicaReport> run_work(Context& context, Deployment& deployment,
                                             const WorkRun& run);

}  // namespace paceline::launcher
