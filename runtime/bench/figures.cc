#include "runtime/bench/figures.h"

#include <algorithm>

#include "kernels/core/error.h"
#include "runtime/bench/statistics.h"

namespace paceline::runtime {
namespace {

/// A step's time goes to prompt rows and generation rows by their numbers.
struct SharedTime {
  double prefill = 0;
  double decode = 0;
  double decode_forward = 0;  // in the model, in steps without prompt rows
  std::int64_t decode_steps = 0;
  std::int64_t rows = 0;
};

SharedTime shared_time(const LoadRecord& replica) {
  SharedTime time;
  for (const StepRecord& step : replica.steps) {
    const std::int32_t rows = step.context_rows + step.generation_rows;
    const double prefill = step.seconds * ratio(step.context_rows, rows);
    time.prefill += prefill;
    time.decode += step.seconds - prefill;
    time.rows += rows;
    if (step.context_rows > 0) continue;
    time.decode_forward += step.forward;
    ++time.decode_steps;
  }
  return time;
}

struct TokenTotals {
  double requests = 0;
  double prompt = 0;
  double fresh = 0;  // new tokens
  double first = 0;  // of these, a request's first
  double chunks = 0;
};

TokenTotals token_totals(const LoadRecord& replica) {
  TokenTotals totals;
  for (const RequestRecord& request : replica.requests) {
    ++totals.requests;
    totals.prompt += request.prompt_tokens;
    totals.fresh += request.new_tokens;
    totals.first += request.new_tokens > 0 ? 1 : 0;
    totals.chunks += static_cast<double>(request.chunks.size());
  }
  return totals;
}

/// Collects values under their names, in the order in which the names first come.
class Collector {
 public:
  void add(std::string_view name, double value) {
    const auto known = std::ranges::find(figures_, name, &Figure::name);
    if (known != figures_.end()) {
      known->values.push_back(value);
    } else {
      figures_.push_back({std::string(name), {value}});
    }
  }
  /// Only where there is something to divide by.
  void add_ratio(std::string_view name, double numerator, double denominator) {
    if (denominator > 0) add(name, numerator / denominator);
  }
  std::vector<Figure> take() { return std::move(figures_); }

 private:
  std::vector<Figure> figures_;
};

void add_speeds(const JobRun& run, std::uint64_t weight_bytes, Collector& figures) {
  TokenTotals all;
  double seconds = 0, prefill = 0, decode = 0, weights = 0, steps = 0, rows = 0;
  for (const LoadRecord& replica : run.replicas) {
    const TokenTotals tokens = token_totals(replica);
    const SharedTime time = shared_time(replica);
    all.requests += tokens.requests;
    all.prompt += tokens.prompt;
    all.fresh += tokens.fresh;
    all.chunks += tokens.chunks;
    seconds = std::max(seconds, replica.seconds);
    prefill += ratio(tokens.prompt, time.prefill);
    decode += ratio(tokens.fresh - tokens.first, time.decode);
    weights += ratio(static_cast<double>(weight_bytes) * static_cast<double>(time.decode_steps),
                     time.decode_forward);
    steps += static_cast<double>(replica.steps.size());
    rows += static_cast<double>(time.rows);
  }
  figures.add("duration_s", seconds);
  figures.add_ratio("request_throughput", all.requests, seconds);
  figures.add_ratio("output_throughput", all.fresh, seconds);
  figures.add_ratio("total_token_throughput", all.prompt + all.fresh, seconds);
  if (prefill > 0) figures.add("prefill_tokens_per_s", prefill);
  if (decode > 0) figures.add("decode_tokens_per_s", decode);
  figures.add_ratio("tokens_per_step", all.fresh, all.chunks);
  figures.add_ratio("rows_per_step", rows, steps);
  if (weights > 0) figures.add("weight_gb_per_s", weights * 1e-9);

  double joules = 0;
  bool known = false;
  for (const RankRun& rank : run.ranks) {
    known |= rank.joules >= 0;
    joules += std::max(0.0, rank.joules);
  }
  if (known) figures.add_ratio("joules_per_token", joules, all.fresh);
}

void add_phases(const RankRun& rank, Collector& figures) {
  const PhaseTimes& time = rank.stats.time;
  const auto add = [&](std::string_view name, double seconds) {
    figures.add_ratio(name, 1e3 * seconds, static_cast<double>(rank.stats.steps));
  };
  add("agree_ms", time.agree);
  add("plan_ms", time.plan);
  add("draft_ms", time.draft);
  add("forward_ms", time.forward);
  add("exchange_ms", rank.exchange_seconds);
  add("select_ms", time.select);
  add("accept_ms", time.accept);
}

// The rank, among all, that leads a replica.
std::size_t leader_of(const JobRun& run, std::size_t replica) {
  check(!run.replicas.empty() && run.ranks.size() % run.replicas.size() == 0,
        "{} ranks of {} replicas", run.ranks.size(), run.replicas.size());
  return replica * (run.ranks.size() / run.replicas.size());
}

}  // namespace

const Figure* find_figure(std::span<const Figure> figures, std::string_view name) {
  const auto found = std::ranges::find(figures, name, &Figure::name);
  return found == figures.end() ? nullptr : &*found;
}

std::vector<Figure> run_figures(std::span<const JobRun> runs, std::uint64_t weight_bytes) {
  Collector figures;
  for (const JobRun& run : runs) {
    add_speeds(run, weight_bytes, figures);
    add_phases(run.ranks.at(0), figures);
    const EngineStats drafts = draft_totals(std::span(&run, 1));
    figures.add_ratio("tree_size", static_cast<double>(drafts.tree_rows),
                      static_cast<double>(drafts.drafted_at[0]));
    figures.add("preemptions", static_cast<double>(drafts.preemptions));
  }
  return figures.take();
}

std::vector<Figure> latency_figures(std::span<const JobRun> runs) {
  Collector figures;
  for (const JobRun& run : runs) {
    for (const LoadRecord& replica : run.replicas) {
      for (const RequestRecord& request : replica.requests) {
        const std::vector<double>& chunks = request.chunks;
        if (chunks.empty()) continue;
        figures.add("ttft_ms", 1e3 * (chunks.front() - request.sent));
        figures.add("e2el_ms", 1e3 * (chunks.back() - request.sent));
        figures.add_ratio("tpot_ms", 1e3 * (chunks.back() - chunks.front()),
                          request.new_tokens - 1);
        for (std::size_t i = 1; i < chunks.size(); ++i) {
          figures.add("itl_ms", 1e3 * (chunks[i] - chunks[i - 1]));
        }
      }
      for (const StepRecord& step : replica.steps) {
        if (step.context_rows == 0) figures.add("decode_step_ms", 1e3 * step.seconds);
      }
    }
  }
  return figures.take();
}

std::vector<TaskFigures> task_figures(std::span<const JobRun> runs,
                                      std::span<const std::string> tasks) {
  struct Sums {
    double chunks = 0, later_tokens = 0, later_seconds = 0;
  };
  std::vector<TaskFigures> figures(tasks.size());
  std::vector<Sums> sums(tasks.size());
  for (const JobRun& run : runs) {
    for (const LoadRecord& replica : run.replicas) {
      for (const RequestRecord& request : replica.requests) {
        const auto task = static_cast<std::size_t>(request.task);
        ++figures.at(task).requests;
        figures[task].new_tokens += request.new_tokens;
        sums[task].chunks += static_cast<double>(request.chunks.size());
        if (request.chunks.empty()) continue;
        sums[task].later_tokens += request.new_tokens - 1;
        sums[task].later_seconds += request.chunks.back() - request.chunks.front();
      }
    }
  }
  for (std::size_t task = 0; task < tasks.size(); ++task) {
    figures[task].name = tasks[task];
    figures[task].tokens_per_step =
        ratio(static_cast<double>(figures[task].new_tokens), sums[task].chunks);
    figures[task].tpot_ms = 1e3 * ratio(sums[task].later_seconds, sums[task].later_tokens);
  }
  return figures;
}

std::vector<RankFigures> rank_figures(std::span<const JobRun> runs) {
  std::vector<RankFigures> figures;
  std::vector<double> steps;
  for (const JobRun& run : runs) {
    figures.resize(run.ranks.size());
    steps.resize(run.ranks.size());
    for (std::size_t rank = 0; rank < run.ranks.size(); ++rank) {
      figures[rank].agree_ms += 1e3 * run.ranks[rank].stats.time.agree;
      figures[rank].forward_ms += 1e3 * run.ranks[rank].stats.time.forward;
      figures[rank].exchange_ms += 1e3 * run.ranks[rank].exchange_seconds;
      steps[rank] += static_cast<double>(run.ranks[rank].stats.steps);
    }
  }
  for (std::size_t rank = 0; rank < figures.size(); ++rank) {
    for (double* sum :
         {&figures[rank].agree_ms, &figures[rank].forward_ms, &figures[rank].exchange_ms}) {
      *sum = ratio(*sum, steps[rank]);
    }
  }
  return figures;
}

int failed_requests(std::span<const JobRun> runs) {
  int failed = 0;
  for (const JobRun& run : runs) {
    for (const LoadRecord& replica : run.replicas) {
      failed += static_cast<int>(
          std::ranges::count_if(replica.requests, [](const auto& r) { return r.failed; }));
    }
  }
  return failed;
}

EngineStats draft_totals(std::span<const JobRun> runs) {
  EngineStats totals;
  for (const JobRun& run : runs) {
    for (std::size_t replica = 0; replica < run.replicas.size(); ++replica) {
      const EngineStats& stats = run.ranks[leader_of(run, replica)].stats;
      totals.tree_rows += stats.tree_rows;
      totals.saved_rows += stats.saved_rows;
      totals.preemptions += stats.preemptions;
      for (std::size_t depth = 0; depth < totals.drafted_at.size(); ++depth) {
        totals.drafted_at[depth] += stats.drafted_at[depth];
        totals.accepted_at[depth] += stats.accepted_at[depth];
      }
    }
  }
  return totals;
}

}  // namespace paceline::runtime
