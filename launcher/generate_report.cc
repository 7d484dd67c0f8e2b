#include "launcher/generate_report.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <iostream>

#include "launcher/deployment.h"
#include "launcher/report_file.h"
#include "launcher/version.h"
#include "runtime/bench/machine.h"
#include "runtime/bench/statistics.h"
#include "runtime/files/json.h"

namespace paceline::launcher {

using runtime::mean;
using runtime::OrderedJson;
using runtime::percentile;
using runtime::ratio;

namespace {

struct Derived {
  double tokens_per_second = 0;
  double tokens_per_step = 0;
  double ttft_mean = 0, ttft_p50 = 0, ttft_p99 = 0;
};

Derived derive(const GenerateFigures& figures) {
  const runtime::JobTotals& totals = figures.totals;
  const auto generated = static_cast<double>(totals.generated_tokens);
  return {ratio(generated, figures.run_seconds),
          ratio(generated, static_cast<double>(totals.steps)), mean(totals.ttft_ms),
          percentile(totals.ttft_ms, 0.5), percentile(totals.ttft_ms, 0.99)};
}

// All replicas' together.
runtime::EngineStats draft_stats(const std::vector<runtime::ReplicaReport>& replicas) {
  runtime::EngineStats sum;
  for (const runtime::ReplicaReport& replica : replicas) {
    sum.tree_rows += replica.stats.tree_rows;
    sum.saved_rows += replica.stats.saved_rows;
    sum.non_finite_drafts += replica.stats.non_finite_drafts;
    for (std::size_t depth = 0; depth < sum.drafted_at.size(); ++depth) {
      sum.drafted_at[depth] += replica.stats.drafted_at[depth];
      sum.accepted_at[depth] += replica.stats.accepted_at[depth];
    }
  }
  return sum;
}

// Of all replicas; `trees` counts those that were not empty.
OrderedJson drafts_json(const runtime::EngineStats& drafts) {
  OrderedJson json;
  json["trees"] = drafts.drafted_at[0];
  json["tree_rows"] = drafts.tree_rows;
  json["rows_saved_by_merging"] = drafts.saved_rows;
  json["non_finite"] = drafts.non_finite_drafts;
  json["acceptance_by_depth"] = acceptance_by_depth(drafts);
  return json;
}

OrderedJson replica_json(const runtime::ReplicaReport& replica) {
  const runtime::EngineStats& stats = replica.stats;
  OrderedJson json;
  json["steps"] = stats.steps;
  json["steps_ahead"] = stats.steps_ahead;
  json["context_rows"] = stats.context_rows;
  json["generation_rows"] = stats.generation_rows;
  json["sampled_tokens"] = stats.sampled_tokens;
  json["tree_rows"] = stats.tree_rows;
  json["rows_saved_by_merging"] = stats.saved_rows;
  json["non_finite_drafts"] = stats.non_finite_drafts;
  json["acceptance_by_depth"] = acceptance_by_depth(stats);
  json["preemptions"] = stats.preemptions;
  json["peak_kv_pages"] = stats.peak_pages;
  json["seconds"] = {{"agree", stats.time.agree},   {"plan", stats.time.plan},
                     {"draft", stats.time.draft},   {"forward", stats.time.forward},
                     {"select", stats.time.select}, {"accept", stats.time.accept}};
  return json;
}

}  // namespace

std::vector<double> acceptance_by_depth(const runtime::EngineStats& stats) {
  std::vector<double> shares;
  for (std::size_t depth = 0; depth < stats.drafted_at.size(); ++depth) {
    if (stats.drafted_at[depth] == 0) break;
    shares.push_back(static_cast<double>(stats.accepted_at[depth]) /
                     static_cast<double>(stats.drafted_at[depth]));
  }
  return shares;
}

std::string summary_text(const GenerateFigures& figures) {
  const runtime::JobTotals& totals = figures.totals;
  const Derived derived = derive(figures);
  std::string text = "\n";
  const auto line = [&](std::string_view name, const std::string& value) {
    text += fmt::format("{:<22}{}\n", name, value);
  };
  line("requests", fmt::format("{} answered, {} failed, {} from an earlier run, of {}",
                               totals.answered, totals.failed, totals.resumed, totals.requests));
  line("tokens",
       fmt::format("{} prompt, {} generated", totals.prompt_tokens, totals.generated_tokens));
  line("time", fmt::format("{:.2f} s, after {:.2f} s of loading", figures.run_seconds,
                           figures.load_seconds));
  line("generated tokens/s", fmt::format("{:.1f}", derived.tokens_per_second));
  line("tokens per step", fmt::format("{:.3f}", derived.tokens_per_step));
  line("time to first token", fmt::format("{:.0f} ms mean, {:.0f} ms p50, {:.0f} ms p99",
                                          derived.ttft_mean, derived.ttft_p50, derived.ttft_p99));
  if (const runtime::EngineStats drafts = draft_stats(figures.replicas); drafts.tree_rows > 0) {
    std::string shares;
    for (const double share : acceptance_by_depth(drafts)) shares += fmt::format(" {:.2f}", share);
    line("drafter", fmt::format("{}", fmt::join(figures.drafters, " and ")));
    line("accepted by depth", shares.substr(1));
    line("tree rows",
         fmt::format("{} verified, {:.0f} % saved by merging", drafts.tree_rows,
                     100 * ratio(static_cast<double>(drafts.saved_rows),
                                 static_cast<double>(drafts.saved_rows + drafts.tree_rows))));
    // A few unlucky trees say nothing; a thousand rows without a single hit do.
    if (drafts.accepted_at[0] == 0 && drafts.tree_rows >= 1000) {
      text +=
          "warning: no drafted token was accepted; was the drafter trained for this model, with "
          "this chat template?\n";
    }
  }
  if (const auto broken = draft_stats(figures.replicas).non_finite_drafts; broken > 0) {
    text += fmt::format("warning: {} drafts held numbers that are not finite\n", broken);
  }
  std::string memory;
  for (const std::uint64_t bytes : figures.peak_memory) {
    memory += (memory.empty() ? "" : ", ") + size_text(bytes);
  }
  line("peak memory per rank", memory);
  if (!figures.checksum.empty()) line("checksum", figures.checksum);
  return text;
}

void write_report(const std::filesystem::path& path, const GenerateFigures& figures) {
  const runtime::JobTotals& totals = figures.totals;
  const Derived derived = derive(figures);
  OrderedJson json;
  json["schema"] = 1;
  json["paceline"] = kVersion;
  json["numerics_id"] = figures.numerics_id;
  json["backend"] = figures.backend;
  json["drafters"] = figures.drafters;
  json["ranks"] = figures.ranks;
  json["tp"] = figures.tp;
  json["requests"] = {{"total", totals.requests},
                      {"answered", totals.answered},
                      {"failed", totals.failed},
                      {"resumed", totals.resumed}};
  json["prompt_tokens"] = totals.prompt_tokens;
  json["generated_tokens"] = totals.generated_tokens;
  json["steps"] = totals.steps;
  json["tokens_per_step"] = derived.tokens_per_step;
  json["load_seconds"] = figures.load_seconds;
  json["run_seconds"] = figures.run_seconds;
  json["tokens_per_second"] = derived.tokens_per_second;
  json["ttft_ms"] = {
      {"mean", derived.ttft_mean}, {"p50", derived.ttft_p50}, {"p99", derived.ttft_p99}};
  json["drafts"] = drafts_json(draft_stats(figures.replicas));
  json["peak_memory_bytes"] = figures.peak_memory;
  json["replicas"] = OrderedJson::array();
  for (const auto& replica : figures.replicas) json["replicas"].push_back(replica_json(replica));
  json["checksum"] = figures.checksum.empty() ? OrderedJson() : OrderedJson(figures.checksum);
  write_file("--report", path.string(), json.dump(2) + "\n");
}

std::vector<std::uint64_t> gather_peak_memory(parallel::Communicator& ranks) {
  return gather_values(ranks, runtime::peak_resident_memory());
}

std::string model_name(const std::filesystem::path& directory) {
  // A trailing slash leaves no last part, "." and links leave the wrong one.
  const std::filesystem::path whole = std::filesystem::weakly_canonical(directory / ".");
  return (whole.has_filename() ? whole : whole.parent_path()).filename().string();
}

ProgressLine::ProgressLine(const runtime::GenerateJob& job)
    : job_(job), on_terminal_(isatty(STDERR_FILENO) == 1) {}

ProgressLine::~ProgressLine() {
  if (shown_ && on_terminal_) std::cerr << "\n";
}

void ProgressLine::tick(const std::vector<runtime::ReplicaReport>& reports) {
  const auto now = Clock::now();
  const double seconds = std::chrono::duration<double>(now - last_).count();
  if (seconds < (on_terminal_ ? 0.25 : 2.0)) return;
  std::int64_t tokens = 0;
  std::int64_t running = 0;
  for (const runtime::ReplicaReport& report : reports) {
    tokens += report.generated_tokens;
    running += report.running;
  }
  const std::string line = fmt::format("{}/{} requests, {} running, {} tokens, {:.0f} tok/s",
                                       job_.finished(), job_.totals().requests, running, tokens,
                                       static_cast<double>(tokens - last_tokens_) / seconds);
  std::cerr << (on_terminal_ ? "\r\x1b[K" + line : line + "\n") << std::flush;
  last_ = now;
  last_tokens_ = tokens;
  shown_ = true;
}

}  // namespace paceline::launcher
