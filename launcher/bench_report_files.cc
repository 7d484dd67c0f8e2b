#include "launcher/bench_report.h"
#include "launcher/commit.h"
#include "launcher/generate_report.h"
#include "launcher/version.h"
#include "runtime/bench/statistics.h"

namespace paceline::launcher {
namespace {

using runtime::Figure;
using runtime::OrderedJson;
using runtime::percentile;

// Null for what was not measured.
OrderedJson json_of(double value, bool known) { return known ? OrderedJson(value) : OrderedJson(); }

OrderedJson summary_json(const std::vector<double>& values) {
  const runtime::Summary summary = runtime::summarize(values);
  return {{"count", summary.count},   {"mean", summary.mean}, {"median", summary.median},
          {"stddev", summary.stddev}, {"min", summary.min},   {"max", summary.max}};
}

OrderedJson latency_json(const std::vector<double>& values) {
  OrderedJson json = summary_json(values);
  json["p50"] = percentile(values, 0.5);
  json["p90"] = percentile(values, 0.9);
  json["p99"] = percentile(values, 0.99);
  return json;
}

OrderedJson setting_json(const BenchSetting& setting) {
  OrderedJson json;
  json["numerics_id"] = setting.numerics_id;
  json["weights"] = setting.weights;
  json["backend"] = setting.backend;
  json["threads"] = setting.threads;
  json["ranks"] = setting.ranks;
  json["tp"] = setting.tp;
  json["exchange"] = setting.exchange;
  json["drafter"] = setting.drafter.empty() ? OrderedJson() : OrderedJson(setting.drafter);
  json["weight_bytes"] = setting.weight_bytes;
  json["weight_bytes_read"] = setting.weight_bytes_read;
  json["kv_bytes"] = setting.kv_bytes;
  json["max_batch_tokens"] = setting.max_batch_tokens;
  json["load_seconds"] = setting.load_seconds;
  return json;
}

OrderedJson ranks_json(const BenchTest& test) {
  OrderedJson ranks = OrderedJson::array();
  for (std::size_t rank = 0; rank < test.ranks.size(); ++rank) {
    const runtime::RankFigures& figures = test.ranks[rank];
    ranks.push_back({{"agree_ms", figures.agree_ms},
                     {"forward_ms", figures.forward_ms},
                     {"exchange_ms", figures.exchange_ms},
                     {"compute_ms", figures.compute_ms()},
                     {"peak_memory_bytes", test.peak_memory.at(rank)},
                     {"read_bytes_per_s", test.bandwidth.at(rank)}});
  }
  return ranks;
}

OrderedJson test_json(const BenchTest& test, int ranks) {
  OrderedJson json;
  json["setting"] = test.setting;
  json["name"] = test_names(test).whole;
  json["input"] = test.input.empty() ? OrderedJson() : OrderedJson(test.input);
  json["prompt_tokens"] = test.input.empty() ? OrderedJson(test.prompt_tokens) : OrderedJson();
  json["new_tokens"] = test.new_tokens;
  json["concurrency"] = test.concurrency;
  json["requests"] = test.requests;
  json["request_rate"] = json_of(test.request_rate, test.request_rate > 0);
  json["draft"] = test.draft;
  json["draft_nodes"] = test.draft_nodes;
  json["runs"] = test.runs;
  json["failed"] = test.failed;
  for (const Figure& figure : test.speeds) json[figure.name] = summary_json(figure.values);
  for (const Figure& figure : test.latencies) json[figure.name] = latency_json(figure.values);
  if (const Figure* output = find_figure(test.speeds, "output_throughput")) {
    json["output_throughput_per_rank"] = runtime::mean(output->values) / ranks;
  }
  json["bandwidth_share"] = json_of(bandwidth_share(test), bandwidth_share(test) > 0);
  json["acceptance_by_depth"] = acceptance_by_depth(test.drafts);
  json["tasks"] = OrderedJson::array();
  for (const runtime::TaskFigures& task : test.tasks) {
    json["tasks"].push_back({{"name", task.name},
                             {"requests", task.requests},
                             {"new_tokens", task.new_tokens},
                             {"tokens_per_step", task.tokens_per_step},
                             {"tpot_ms", task.tpot_ms}});
  }
  json["ranks"] = ranks_json(test);
  return json;
}

// A cell that may hold commas or quotes.
std::string quoted(const std::string& text) {
  std::string cell = "\"";
  for (const char letter : text)
    cell += letter == '"' ? std::string("\"\"") : std::string(1, letter);
  return cell + "\"";
}

constexpr const char* kSpeedColumns[] = {"duration_s",
                                         "request_throughput",
                                         "output_throughput",
                                         "total_token_throughput",
                                         "prefill_tokens_per_s",
                                         "decode_tokens_per_s",
                                         "tokens_per_step",
                                         "rows_per_step",
                                         "tree_size",
                                         "agree_ms",
                                         "plan_ms",
                                         "draft_ms",
                                         "forward_ms",
                                         "exchange_ms",
                                         "select_ms",
                                         "accept_ms",
                                         "weight_gb_per_s",
                                         "joules_per_token",
                                         "preemptions"};
constexpr const char* kLatencyColumns[] = {"ttft_ms", "tpot_ms", "itl_ms", "e2el_ms",
                                           "decode_step_ms"};
constexpr const char* kSummaryColumns[] = {"mean", "median", "stddev", "min", "max"};
constexpr const char* kPercentileColumns[] = {"p50", "p90", "p99"};

std::string csv_head() {
  std::string head =
      "schema,paceline,commit,model,parameters,weights,numerics_id,backend,threads,ranks,tp,"
      "drafter,draft,draft_nodes,simulated,test,input,prompt_tokens,new_tokens,concurrency,"
      "requests,"
      "request_rate,runs";
  for (const char* name : kSpeedColumns) {
    for (const char* part : kSummaryColumns) head += fmt::format(",{}_{}", name, part);
  }
  for (const char* name : kLatencyColumns) {
    for (const char* part : kSummaryColumns) head += fmt::format(",{}_{}", name, part);
    for (const char* part : kPercentileColumns) head += fmt::format(",{}_{}", name, part);
  }
  return head + ",bandwidth_share\n";
}

// The figure's summary in its columns; empty ones for what was not measured.
std::string figure_cells(const Figure* figure, bool percentiles) {
  const std::size_t columns =
      std::size(kSummaryColumns) + (percentiles ? std::size(kPercentileColumns) : 0);
  if (figure == nullptr) return std::string(columns, ',');
  const runtime::Summary summary = runtime::summarize(figure->values);
  std::string cells = fmt::format(",{:g},{:g},{:g},{:g},{:g}", summary.mean, summary.median,
                                  summary.stddev, summary.min, summary.max);
  if (percentiles) {
    for (const double share : {0.5, 0.9, 0.99}) {
      cells += fmt::format(",{:g}", percentile(figure->values, share));
    }
  }
  return cells;
}

}  // namespace

OrderedJson bench_json(const BenchReport& report) {
  OrderedJson json;
  json["schema"] = kBenchSchema;
  json["paceline"] = kVersion;
  json["commit"] = kCommit;
  json["simulated_tokens_per_step"] = json_of(report.simulated, report.simulated > 0);
  json["model"] = {{"name", report.model}, {"parameters", report.parameters}};
  json["machine"] = {{"cpu", report.cpu},
                     {"cores", report.cores},
                     {"memory_bytes", report.memory},
                     {"mpi", report.mpi},
                     {"hosts", report.hosts}};
  json["seed"] = report.seed;
  json["temperature"] = report.temperature;
  for (const char* list : {"settings", "tests", "step_cost"}) json[list] = OrderedJson::array();
  for (const BenchSetting& setting : report.settings) {
    json["settings"].push_back(setting_json(setting));
  }
  for (const BenchTest& test : report.tests) {
    json["tests"].push_back(test_json(test, report.settings[test.setting].ranks));
  }
  for (const StepCost& cost : report.step_costs) {
    json["step_cost"].push_back({{"setting", cost.setting},
                                 {"rows", cost.rows},
                                 {"context", cost.context},
                                 {"step_ms", latency_json(cost.step_ms)},
                                 {"forward_ms", latency_json(cost.forward_ms)}});
  }
  return json;
}

std::string bench_csv(const BenchReport& report) {
  std::string text = csv_head();
  for (const BenchTest& test : report.tests) {
    const BenchSetting& setting = report.settings[test.setting];
    text += fmt::format(
        "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{:g},{},{},{},{},{},{},{:g},{}", kBenchSchema,
        kVersion, kCommit, quoted(report.model), report.parameters, setting.weights,
        quoted(setting.numerics_id), setting.backend, setting.threads, setting.ranks, setting.tp,
        quoted(setting.drafter), test.draft, test.draft_nodes, report.simulated,
        quoted(test_names(test).whole), quoted(test.input), test.prompt_tokens, test.new_tokens,
        test.concurrency, test.requests, test.request_rate, test.runs);
    for (const char* name : kSpeedColumns) {
      text += figure_cells(find_figure(test.speeds, name), false);
    }
    for (const char* name : kLatencyColumns) {
      text += figure_cells(find_figure(test.latencies, name), true);
    }
    text += fmt::format(",{:g}\n", bandwidth_share(test));
  }
  return text;
}

}  // namespace paceline::launcher
