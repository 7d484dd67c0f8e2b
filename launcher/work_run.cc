#include "launcher/work_run.h"

#include <algorithm>

#include "runtime/engine/engine.h"
#include "runtime/job/replica.h"

namespace paceline::launcher {
namespace {

// Rank 0's: its own replica, and the others' questions.
std::vector<runtime::ReplicaReport> serve_all(Context& context, Deployment& deployment,
                                              const WorkRun& run, runtime::Engine& engine,
                                              bool& winding_down) {
  std::vector<int> leaders;
  for (int rank = 0; rank < context.world.size(); rank += deployment.tp()) leaders.push_back(rank);
  runtime::WorkServer server(
      context.world, leaders,
      {.next = [&](std::size_t wanted) { return run.callbacks.next(winding_down ? 0 : wanted); },
       .exhausted = [&] { return winding_down || run.callbacks.exhausted(); },
       .complete = run.callbacks.complete});
  // A signal to a rank of any replica ends the job: from then on no replica gets a new request.
  const auto meanwhile = [&] {
    run.tick(server.reports());
    winding_down |= std::ranges::any_of(server.reports(), [](const auto& report) {
      return report.done && report.end == runtime::RunEnd::kTerminated;
    });
  };
  runtime::LocalWork work(server, engine, meanwhile);
  const runtime::RunEnd end = runtime::ReplicaLeader(engine, run.tokenizer, work).run();
  winding_down |= end == runtime::RunEnd::kTerminated;
  runtime::ReplicaReport& own = server.reports().front();
  own.stats = engine.stats();
  own.end = end;
  own.done = true;
  server.serve_to_end(meanwhile);
  return server.reports();
}

}  // namespace

runtime::SchedulerLimits scheduler_limits(const BatchOptions& batch, std::int32_t num_pages,
                                          const drafter::DraftShape& shape) {
  const int rows = std::max(batch.max_batch_tokens, batch.max_batch);
  return {.max_sequences = batch.max_batch,
          .max_rows = rows,
          .page_size = runtime::kPageSize,
          .num_pages = num_pages,
          .max_sampled = shape.depth > 0 ? rows : batch.max_batch};
}

std::vector<runtime::ReplicaReport> run_work(Context& context, Deployment& deployment,
                                             const WorkRun& run) {
  bool winding_down = false;  // on rank 0: some replica was told to terminate
  runtime::Engine engine(
      deployment.model(), deployment.backend(), deployment.replica(), run.limits,
      deployment.cache().pool(),
      {.terminate = [&] { return winding_down || context.signals.termination_requested(); },
       .enter_phase = [&](std::string_view phase) { context.world.enter(phase); }},
      deployment.drafting().engine_drafting());
  if (context.world.rank() == 0) {
    return serve_all(context, deployment, run, engine, winding_down);
  }
  if (deployment.leads_replica()) {
    runtime::RemoteWork work(context.world, engine);
    work.finish(runtime::ReplicaLeader(engine, run.tokenizer, work).run());
  } else {
    runtime::follow(engine);
  }
  return {};
}

}  // namespace paceline::launcher
