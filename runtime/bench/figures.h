#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/bench/load.h"
#include "runtime/engine/engine.h"

namespace paceline::runtime {

/// What one rank has of one run. Travels between ranks as it is.
struct RankRun {
  EngineStats stats;
  double exchange_seconds = 0;  // in the model's exchanges with other ranks, waiting included
  double joules = -1;           // of its node, on the node's first rank; negative: not known
};

/// One run of a workload on all ranks.
struct JobRun {
  std::vector<LoadRecord> replicas;
  std::vector<RankRun> ranks;  // replica by replica
};

/// A named series of measurements.
struct Figure {
  std::string name;
  std::vector<double> values;
};

/// Null if there is none of that name.
const Figure* find_figure(std::span<const Figure> figures, std::string_view name);

/// One value a run, names as vLLM's benchmarks have them where those have one:
///   duration_s                first request to last token
///   request_throughput        requests a second
///   output_throughput         new tokens a second
///   total_token_throughput    prompt and new tokens a second
///   prefill_tokens_per_s      prompt tokens a second of the time that steps spent on prompts
///   decode_tokens_per_s       further tokens a second of the rest; a step that fed both kinds of
///                             rows is shared out by their numbers
///   tokens_per_step           new tokens for each step that gave a request some
///   rows_per_step             rows fed in a step
///   tree_size                 nodes of a draft tree that was not empty
///   {agree,plan,draft,forward,exchange,select,accept}_ms
///                             of a step on rank 0; exchange is a part of forward (and of draft)
///   weight_gb_per_s           weights over the model's time, in steps without prompt rows
///   joules_per_token          of all nodes, for each new token
///   preemptions
/// What a run has nothing to say of (no drafts, no decoding steps, no energy) has no figure.
/// `weight_bytes`: that all ranks of a replica read in a step.
std::vector<Figure> run_figures(std::span<const JobRun> runs, std::uint64_t weight_bytes);

/// One value a request (ttft_ms, tpot_ms, e2el_ms), gap between the tokens of two steps (itl_ms) or
/// step without prompt rows (decode_step_ms), over all runs.
std::vector<Figure> latency_figures(std::span<const JobRun> runs);

/// The requests of one task, over all runs.
struct TaskFigures {
  std::string name;
  std::int64_t requests = 0;
  std::int64_t new_tokens = 0;
  double tokens_per_step = 0;
  double tpot_ms = 0;  // mean over tokens: what a token after a request's first took
};
std::vector<TaskFigures> task_figures(std::span<const JobRun> runs,
                                      std::span<const std::string> tasks);

/// Of one rank, over all runs, in ms of a step.
struct RankFigures {
  double agree_ms = 0;
  double forward_ms = 0;
  double exchange_ms = 0;
  /// Forward without exchange: what the rank computes. The slowest is whom the others wait for.
  double compute_ms() const { return forward_ms - exchange_ms; }
};
std::vector<RankFigures> rank_figures(std::span<const JobRun> runs);

/// Requests that ended because a logit was not finite.
int failed_requests(std::span<const JobRun> runs);

/// What was drafted, accepted and preempted, all replicas and runs together; nothing else.
EngineStats draft_totals(std::span<const JobRun> runs);

}  // namespace paceline::runtime
