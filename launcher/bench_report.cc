#include "launcher/bench_report.h"

#include <algorithm>

#include "kernels/core/error.h"
#include "launcher/deployment.h"
#include "launcher/generate_report.h"
#include "runtime/bench/statistics.h"

namespace paceline::launcher {
namespace {

using runtime::Figure;
using runtime::percentile;
using runtime::Summary;

// "123.4 ± 5.6"
std::string spread_text(const Summary& summary) {
  return fmt::format("{:.2f} ± {:.2f}", summary.mean, summary.stddev);
}

/// Cells of a table, its head first, as Markdown with columns of one width.
std::string table_text(const std::vector<std::vector<std::string>>& rows,
                       std::size_t left_columns) {
  // ± is one character of two bytes.
  const auto width = [](const std::string& cell) {
    return cell.size() - static_cast<std::size_t>(std::ranges::count(cell, '\xc2'));
  };
  std::vector<std::size_t> widths(rows.front().size());
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(row[i]));
  }
  std::string text;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    for (std::size_t i = 0; i < widths.size(); ++i) {
      const std::string padding(widths[i] - width(rows[r][i]), ' ');
      text +=
          i < left_columns ? "| " + rows[r][i] + padding + " " : "| " + padding + rows[r][i] + " ";
    }
    text += "|\n";
    if (r > 0) continue;
    for (std::size_t i = 0; i < widths.size(); ++i) {
      text += "| " + std::string(widths[i] - 1, '-') + (i < left_columns ? "- " : ": ");
    }
    text += "|\n";
  }
  return text;
}

// "SmolLM2 int4", "134.52 M"
std::string parameter_text(std::int64_t parameters) {
  const auto count = static_cast<double>(parameters);
  return count >= 1e9 ? fmt::format("{:.2f} B", count / 1e9) : fmt::format("{:.2f} M", count / 1e6);
}

std::string draft_text(const BenchReport& report, const BenchTest& test) {
  if (test.draft == "off") return "off";
  std::string text = report.settings[test.setting].drafter + " " + test.draft;
  if (test.draft_nodes > 0) text += fmt::format(", {} nodes", test.draft_nodes);
  return text;
}

std::string simulated_text(const BenchReport& report) {
  if (report.simulated == 0) return {};
  return fmt::format(
      "simulated: drafts are accepted as if a step gave {:g} tokens; the tokens are not the "
      "model's\n",
      report.simulated);
}

/// "name                value" lines.
class Lines {
 public:
  void add(std::string_view name, const std::string& value) {
    text_ += fmt::format("  {:<20}{}\n", name, value);
  }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

void add_speeds(const BenchTest& test, int ranks, Lines& lines) {
  const std::pair<const char*, const char*> kSpeeds[] = {{"prefill tok/s", "prefill_tokens_per_s"},
                                                         {"decode tok/s", "decode_tokens_per_s"},
                                                         {"output tok/s", "output_throughput"},
                                                         {"total tok/s", "total_token_throughput"},
                                                         {"requests/s", "request_throughput"}};
  for (const auto& [label, name] : kSpeeds) {
    const Figure* figure = find_figure(test.speeds, name);
    if (figure == nullptr) continue;
    const Summary summary = runtime::summarize(figure->values);
    std::string text = fmt::format("{}, median {:.2f}, {:.2f} to {:.2f}", spread_text(summary),
                                   summary.median, summary.min, summary.max);
    if (ranks > 1 && figure->name == "output_throughput") {
      text += fmt::format("; {:.2f} a rank", summary.mean / ranks);
    }
    lines.add(label, text);
  }
  for (const char* name : {"ttft_ms", "tpot_ms", "itl_ms"}) {
    const Figure* figure = find_figure(test.latencies, name);
    if (figure == nullptr) continue;
    lines.add(name, fmt::format("{}, p50 {:.2f}, p90 {:.2f}, p99 {:.2f}",
                                spread_text(runtime::summarize(figure->values)),
                                percentile(figure->values, 0.5), percentile(figure->values, 0.9),
                                percentile(figure->values, 0.99)));
  }
}

void add_drafts(const BenchTest& test, double tokens_per_step, Lines& lines) {
  lines.add("tokens per step", fmt::format("{:.3f}", tokens_per_step));
  const runtime::EngineStats& drafts = test.drafts;
  if (drafts.tree_rows == 0) return;
  std::string shares;
  for (const double share : acceptance_by_depth(drafts)) shares += fmt::format(" {:.2f}", share);
  if (!shares.empty()) lines.add("accepted by depth", shares.substr(1));
  lines.add(
      "tree size",
      fmt::format("{:.1f} nodes, {:.0f} % of the rows saved by merging",
                  runtime::ratio(static_cast<double>(drafts.tree_rows),
                                 static_cast<double>(drafts.drafted_at[0])),
                  100 * runtime::ratio(static_cast<double>(drafts.saved_rows),
                                       static_cast<double>(drafts.saved_rows + drafts.tree_rows))));
}

void add_ranks(const BenchTest& test, Lines& lines) {
  if (test.ranks.size() < 2) return;
  std::size_t slowest = 0;
  double sum = 0;
  for (std::size_t rank = 0; rank < test.ranks.size(); ++rank) {
    const runtime::RankFigures& figures = test.ranks[rank];
    lines.add(fmt::format("rank {}", rank),
              fmt::format("computes {:.3f} ms a step, exchanges {:.3f}, agrees {:.3f}",
                          figures.compute_ms(), figures.exchange_ms, figures.agree_ms));
    sum += figures.compute_ms();
    if (figures.compute_ms() > test.ranks[slowest].compute_ms()) slowest = rank;
  }
  const double average = sum / static_cast<double>(test.ranks.size());
  lines.add("skew",
            fmt::format("rank {} computes {:.0f} % longer than the average", slowest,
                        100 * (runtime::ratio(test.ranks[slowest].compute_ms(), average) - 1)));
}

void add_machine(const BenchTest& test, const BenchSetting& setting, Lines& lines) {
  const auto mean_of = [&](const char* name) {
    const Figure* figure = find_figure(test.speeds, name);
    return figure == nullptr ? 0 : runtime::mean(figure->values);
  };
  lines.add(
      "step ms",
      fmt::format("agree {:.3f}, plan {:.3f}, draft {:.3f}, forward {:.3f} (exchange {:.3f}), "
                  "select {:.3f}, accept {:.3f}; {:.1f} rows",
                  mean_of("agree_ms"), mean_of("plan_ms"), mean_of("draft_ms"),
                  mean_of("forward_ms"), mean_of("exchange_ms"), mean_of("select_ms"),
                  mean_of("accept_ms"), mean_of("rows_per_step")));
  double bandwidth = 0;
  for (const double of_rank : test.bandwidth) bandwidth += of_rank;
  if (const double weights = mean_of("weight_gb_per_s"); weights > 0) {
    lines.add("weights read", fmt::format("{:.2f} GB/s of {:.2f} that memory gives: {:.0f} %",
                                          weights, bandwidth * 1e-9, 100 * bandwidth_share(test)));
  }
  const Figure* energy = find_figure(test.speeds, "joules_per_token");
  lines.add("energy",
            energy == nullptr
                ? "not readable on this machine"
                : fmt::format("{} J a token", spread_text(runtime::summarize(energy->values))));
  std::string memory;
  for (const std::uint64_t bytes : test.peak_memory) {
    memory += (memory.empty() ? "" : ", ") + size_text(bytes);
  }
  lines.add("peak memory",
            fmt::format("{}; weights {} in all, keys and values up to {} a rank", memory,
                        size_text(setting.weight_bytes), size_text(setting.kv_bytes)));
  if (const double preemptions = mean_of("preemptions"); preemptions > 0) {
    lines.add("warning", fmt::format("{:.1f} preemptions a run: raise --kv-memory", preemptions));
  }
  if (test.failed > 0) lines.add("warning", fmt::format("{} requests failed", test.failed));
}

std::string test_text(const BenchReport& report, const BenchTest& test) {
  const BenchSetting& setting = report.settings[test.setting];
  const TestNames names = test_names(test);
  Lines lines;
  add_speeds(test, setting.ranks, lines);
  const Figure* tokens_per_step = find_figure(test.speeds, "tokens_per_step");
  if (tokens_per_step != nullptr) {
    const double reached = runtime::mean(tokens_per_step->values);
    add_drafts(test, reached, lines);
    // Somewhat less is due to the first token, which comes with the prompt.
    if (test.draft != "off" && reached < 0.9 * report.simulated) {
      lines.add("warning", fmt::format("{:g} tokens a step were to be simulated: the trees are too "
                                       "shallow, or the answers too short",
                                       report.simulated));
    }
  }
  add_machine(test, setting, lines);
  add_ranks(test, lines);
  for (const runtime::TaskFigures& task : test.tasks) {
    if (test.tasks.size() < 2) break;
    lines.add(task.name,
              fmt::format("{} requests, {} tokens, {:.3f} a step, {:.2f} ms a token", task.requests,
                          task.new_tokens, task.tokens_per_step, task.tpot_ms));
  }
  const auto count = [](int number, const char* what) {
    return fmt::format("{} {}{}", number, what, number == 1 ? "" : "s");
  };
  return fmt::format("\n{}, draft {}, {} of {}, {}, {}\n{}", names.whole, draft_text(report, test),
                     count(setting.ranks, "rank"), count(setting.threads, "thread"),
                     setting.numerics_id, count(test.runs, "run"), lines.take());
}

std::string step_cost_text(const BenchReport& report) {
  if (report.step_costs.empty()) return {};
  std::vector<std::vector<std::string>> rows = {
      {"weights", "threads", "rows", "step ms", "median", "ms a row"}};
  for (const StepCost& cost : report.step_costs) {
    const BenchSetting& setting = report.settings[cost.setting];
    const Summary summary = runtime::summarize(cost.step_ms);
    rows.push_back({setting.weights, std::to_string(setting.threads), std::to_string(cost.rows),
                    spread_text(summary), fmt::format("{:.2f}", summary.median),
                    fmt::format("{:.3f}", summary.median / cost.rows)});
  }
  return "\n" + table_text(rows, 1);
}

}  // namespace

TestNames test_names(const BenchTest& test) {
  const std::string prompt =
      test.input.empty() ? fmt::format("pp{}", test.prompt_tokens) : test.input;
  std::string load = fmt::format("c{}", test.concurrency);
  if (test.request_rate > 0) load += fmt::format(" r{:g}", test.request_rate);
  const std::string decode = fmt::format("tg{}", test.new_tokens);
  const std::string behind =
      test.input.empty() ? fmt::format("d{}", test.prompt_tokens) : test.input;
  return {
      .prefill = fmt::format("{} @ {}", test.input.empty() ? prompt : "prompts of " + prompt, load),
      .decode = fmt::format("{} @ {} {}", decode, behind, load),
      .whole = fmt::format("{}+{} @ {}", prompt, decode, load)};
}

double bandwidth_share(const BenchTest& test) {
  const Figure* weights = find_figure(test.speeds, "weight_gb_per_s");
  double bandwidth = 0;
  for (const double of_rank : test.bandwidth) bandwidth += of_rank;
  return weights == nullptr ? 0 : runtime::ratio(runtime::mean(weights->values) * 1e9, bandwidth);
}

std::string markdown_table(const BenchReport& report) {
  std::vector<std::vector<std::string>> rows = {
      {"model", "size", "params", "backend", "threads", "ranks", "draft", "test", "t/s"}};
  for (const BenchTest& test : report.tests) {
    const BenchSetting& setting = report.settings[test.setting];
    const TestNames names = test_names(test);
    const auto add = [&](const std::string& name, const char* speed) {
      const Figure* figure = find_figure(test.speeds, speed);
      if (figure == nullptr) return;
      rows.push_back({report.model + " " + setting.weights, size_text(setting.weight_bytes),
                      parameter_text(report.parameters), setting.backend,
                      std::to_string(setting.threads), std::to_string(setting.ranks),
                      draft_text(report, test), name,
                      spread_text(runtime::summarize(figure->values))});
    };
    add(names.prefill, "prefill_tokens_per_s");
    add(names.decode, "decode_tokens_per_s");
    add(names.whole, "total_token_throughput");
  }
  return table_text(rows, 1) + simulated_text(report);
}

std::string bench_text(const BenchReport& report) {
  std::string text =
      fmt::format("{}, {} core{}, {} of memory; {}\n\n", report.cpu, report.cores,
                  report.cores == 1 ? "" : "s", size_text(report.memory), report.mpi);
  text += markdown_table(report);
  for (const BenchTest& test : report.tests) text += test_text(report, test);
  return text + step_cost_text(report);
}

}  // namespace paceline::launcher
