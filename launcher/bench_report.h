#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "runtime/bench/figures.h"
#include "runtime/files/json.h"

namespace paceline::launcher {

/// With what a test ran: one loaded model.
struct BenchSetting {
  std::string numerics_id = {};
  std::string weights = {};  // of attention and FFN: "int4g32"
  std::string backend = {};  // "avx512vnni"
  int threads = 1;           // of a rank
  int ranks = 1;
  int tp = 1;
  std::string exchange = {};            // "single", "shared memory", "MPI"
  std::string drafter = {};             // its directory's name, "lookup", both, or empty
  std::uint64_t weight_bytes = 0;       // of the whole model
  std::uint64_t weight_bytes_read = 0;  // by all ranks of a replica in a step
  std::uint64_t kv_bytes = 0;           // reserved on rank 0
  int max_batch_tokens = 0;
  double load_seconds = 0;
};

/// One load, `repeat` runs of it.
struct BenchTest {
  std::size_t setting = 0;         // which of the report's
  std::string input = {};          // the name of the input's file; empty: random prompts
  std::int64_t prompt_tokens = 0;  // of each random prompt
  std::int64_t new_tokens = 0;     // of a request, at most
  int concurrency = 1;
  int requests = 0;  // of a run
  double request_rate = 0;
  std::string draft = {};  // "8x4", or "off"
  int draft_nodes = 0;
  int runs = 0;
  std::vector<runtime::Figure> speeds = {};     // runtime::run_figures
  std::vector<runtime::Figure> latencies = {};  // runtime::latency_figures
  std::vector<runtime::TaskFigures> tasks = {};
  std::vector<runtime::RankFigures> ranks = {};
  std::vector<std::uint64_t> peak_memory = {};  // bytes, of each rank, up to the test's end
  std::vector<double> bandwidth = {};  // bytes per second, of each rank, all reading at once
  runtime::EngineStats drafts = {};    // runtime::draft_totals
  int failed = 0;                      // requests whose logits were not finite
};

/// What a step of so many rows took, one request with `context` tokens before them.
struct StepCost {
  std::size_t setting = 0;
  int rows = 0;
  int context = 0;
  std::vector<double> step_ms = {};
  std::vector<double> forward_ms = {};
};

struct BenchReport {
  std::string model = {};  // its name
  std::int64_t parameters = 0;
  std::string cpu = {};
  int cores = 0;
  std::uint64_t memory = 0;
  std::string mpi = {};
  std::vector<std::string> hosts = {};  // of the ranks
  std::uint64_t seed = 0;
  float temperature = 0;
  double simulated = 0;  // tokens per step, if acceptance was simulated
  std::vector<BenchSetting> settings = {};
  std::vector<BenchTest> tests = {};
  std::vector<StepCost> step_costs = {};
};

/// Of the JSON and CSV files. Keys may be added to one schema; a new one changes what a key means.
inline constexpr int kBenchSchema = 1;

/// "512", or the input's name, "+tg128 @ c8"; the names of its three rows in the table: "pp512 @
/// c8", "tg128 @ d512 c8", "pp512+tg128 @ c8".
struct TestNames {
  std::string prefill, decode, whole;
};
TestNames test_names(const BenchTest& test);

/// Share of the memory's bandwidth that reading the weights takes in steps without prompt rows; 0
/// if not known.
double bandwidth_share(const BenchTest& test);

/// One row for each speed of each test, as llama-bench prints them.
std::string markdown_table(const BenchReport& report);
/// The table, and for each test what a table has no room for.
std::string bench_text(const BenchReport& report);
runtime::OrderedJson bench_json(const BenchReport& report);
/// A header and a line for each test; the means, medians, ... of its figures in columns of their
/// own.
std::string bench_csv(const BenchReport& report);

}  // namespace paceline::launcher
