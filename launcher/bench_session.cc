#include "launcher/bench_session.h"

#include <algorithm>
#include <iostream>

#include "kernels/core/error.h"
#include "launcher/generate_report.h"
#include "runtime/bench/bandwidth.h"
#include "runtime/bench/fixed_tree_drafter.h"
#include "runtime/bench/simulated_acceptance.h"
#include "runtime/job/replica.h"

namespace paceline::launcher {
namespace {

using runtime::FixedTreeDrafter;
using runtime::JobRun;
using runtime::Workload;

constexpr int kStepContext = 64;  // tokens before the rows that --step-rows times
constexpr int kTimedSteps = 16;   // of each run of those

bool drafts_something(const DraftOptions& draft) {
  return draft.shape != "off" && (draft.drafter != "none" || draft.lookup);
}

// What the drafter is opened with: `auto` if any of the group is, else any of its shapes.
DraftOptions draft_to_load(const std::vector<DraftOptions>& drafts) {
  auto found = std::ranges::find(drafts, "auto", &DraftOptions::shape);
  if (found == drafts.end()) found = std::ranges::find_if(drafts, drafts_something);
  return found != drafts.end() ? *found : DraftOptions{};
}

drafter::DraftShape shape_of(const DraftOptions& draft) {
  return drafts_something(draft) ? draft_shape(draft) : drafter::DraftShape{};
}

std::string drafter_text(const DraftOptions& draft) {
  std::string text = draft.drafter == "none" ? "" : model_name(draft.drafter);
  if (draft.lookup) text += text.empty() ? "lookup" : "+lookup";
  return text;
}

// The most nodes that a tree of that shape may have: those of a head and of lookup beside it.
std::int32_t most_nodes(const drafter::DraftShape& shape) {
  return shape.max_nodes > 0 ? shape.max_nodes : 2 * shape.width * shape.depth;
}

std::int32_t pages_of(std::int64_t tokens) {
  return static_cast<std::int32_t>((tokens + runtime::kPageSize - 1) / runtime::kPageSize);
}

}  // namespace

BenchSession::BenchSession(const BenchGroup& group, Context& context)
    : group_(group),
      options_(group.options),
      context_(context),
      deployment_(context.world, options_.model, options_.cluster, draft_to_load(group.drafts)) {
  parallel::World& world = context_.world;
  together(world, [&] {
    if (speaks()) cases_ = make_cases(options_, deployment_.config());
  });
  cases_ = share_cases(world, std::move(cases_));
  int most = 1;
  for (const BenchCase& item : cases_) most = std::max(most, item.workload.concurrency);
  max_rows_ = std::max(options_.batch.max_batch_tokens, most);
  num_pages_ = std::min(deployment_.kv_pages(options_.batch.kv_memory, most), pages_needed());
  together(world, [&] { check_cache(); });
}

// For all requests in flight at their longest, in the largest case.
std::int32_t BenchSession::pages_needed() const {
  std::int32_t nodes = 0;
  for (const DraftOptions& draft : group_.drafts) {
    nodes = std::max(nodes, most_nodes(shape_of(draft)));
  }
  std::int64_t needed = 0;
  for (const BenchCase& item : cases_) {
    std::int64_t longest = 0;
    for (const Workload::Item& one : item.workload.items) {
      longest = std::max<std::int64_t>(
          longest, std::ssize(one.request.prompt) + one.request.max_new_tokens + nodes);
    }
    needed =
        std::max<std::int64_t>(needed, std::int64_t{item.workload.concurrency} * pages_of(longest));
  }
  if (!options_.step_rows.empty()) {
    const int rows = *std::ranges::max_element(options_.step_rows);
    needed = std::max<std::int64_t>(needed, pages_of(kStepContext + 2 * kTimedSteps + rows));
  }
  return static_cast<std::int32_t>(std::min<std::int64_t>(needed, 1 << 30));
}

void BenchSession::check_cache() const {
  for (const BenchCase& item : cases_) {
    for (const Workload::Item& one : item.workload.items) {
      const std::int64_t tokens = std::ssize(one.request.prompt) + one.request.max_new_tokens - 1;
      if (pages_of(tokens) <= num_pages_) continue;
      throw ConfigError("--kv-memory: a request of {} tokens needs {} pages, there are {}", tokens,
                        pages_of(tokens), num_pages_);
    }
  }
  for (const int rows : options_.step_rows) {
    if (rows <= max_rows_) continue;
    throw ConfigError("--step-rows {}: more than --max-batch-tokens {}", rows, max_rows_);
  }
}

void BenchSession::load() {
  const auto begin = std::chrono::steady_clock::now();
  const bool trees =
      std::ranges::any_of(group_.drafts, drafts_something) || !options_.step_rows.empty();
  int most = 1;
  for (const BenchCase& item : cases_) most = std::max(most, item.workload.concurrency);
  deployment_.time_exchange();
  deployment_.load({.max_rows = max_rows_, .max_sampled = trees ? max_rows_ : most}, num_pages_);
  load_seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const std::uint64_t mine =
      runtime::weight_bytes_read(deployment_.config(), deployment_.formats(), deployment_.plan());
  for (const std::uint64_t bytes : gather_values(context_.world.all(), mine)) {
    weight_bytes_read_ += bytes / static_cast<std::uint64_t>(deployment_.num_replicas());
  }
  peak_memory_ = runtime::peak_resident_memory();
}

runtime::Drafting BenchSession::drafting(const DraftOptions& draft) {
  if (!drafts_something(draft)) return {};
  runtime::Drafting drafting = deployment_.drafting().engine_drafting();
  drafting.shape = shape_of(draft);
  if (draft.shape != "auto") drafting.planner = nullptr;
  if (options_.simulate_acceptance > 0) {
    drafting.override_choices = runtime::SimulatedAcceptance(options_.simulate_acceptance);
  }
  return drafting;
}

// A run has an engine of its own, so that it begins with an empty cache and figures of 0.
JobRun BenchSession::run_once(const Workload& workload, const runtime::Drafting& drafting) {
  parallel::World& world = context_.world;
  const Workload mine =
      runtime::replica_share(workload, world.rank() / deployment_.tp(), deployment_.num_replicas());
  const std::int32_t sequences = std::max(1, mine.concurrency);
  runtime::Engine engine(deployment_.model(), deployment_.backend(), deployment_.replica(),
                         {.max_sequences = sequences,
                          .max_rows = max_rows_,
                          .page_size = runtime::kPageSize,
                          .num_pages = num_pages_,
                          .max_sampled = drafting.drafter != nullptr ? max_rows_ : sequences},
                         deployment_.cache().pool(),
                         {.terminate = [] { return false; },
                          .enter_phase = [&](std::string_view phase) { world.enter(phase); }},
                         drafting);

  world.enter("bench", std::chrono::hours(24));  // the slowest replica's last run
  world.all().barrier();
  energy_.lap();
  const double exchanged = deployment_.exchange_seconds();
  std::string record;
  if (deployment_.leads_replica()) {
    const std::vector<std::byte> bytes = runtime::encode_load(runtime::run_load(engine, mine));
    record.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  } else {
    runtime::follow(engine);
  }
  runtime::RankRun rank{.stats = engine.stats(),
                        .exchange_seconds = deployment_.exchange_seconds() - exchanged};
  world.enter("bench", std::chrono::hours(24));
  if (world.local_rank() == 0) rank.joules = energy_.lap().value_or(-1);

  JobRun run;
  run.ranks = gather_values(world.all(), rank);
  for (const std::string& bytes : gather_texts(world.all(), record)) {
    if (!bytes.empty())
      run.replicas.push_back(runtime::decode_load(std::as_bytes(std::span(bytes))));
  }
  return run;
}

std::vector<std::uint64_t> BenchSession::measure_memory() {
  peak_memory_ = std::max(peak_memory_, runtime::resident_memory());
  return gather_values(context_.world.all(), peak_memory_);
}

// The runs of one case: each kind of draft in turn, so that they meet the same machine.
void BenchSession::run_case(const BenchCase& item, BenchReport& report) {
  const std::size_t kinds = group_.drafts.size();
  std::vector<BenchTest> tests(kinds);
  std::vector<std::vector<JobRun>> runs(kinds);
  for (std::size_t kind = 0; kind < kinds; ++kind) {
    const DraftOptions& draft = group_.drafts[kind];
    tests[kind] = {.setting = report.settings.size() - 1,
                   .input = item.input,
                   .prompt_tokens = item.prompt_tokens,
                   .new_tokens = options_.new_tokens,
                   .concurrency = item.workload.concurrency,
                   .requests = static_cast<int>(item.workload.items.size()),
                   .request_rate = options_.request_rate,
                   .draft = drafts_something(draft) ? draft.shape : "off",
                   .draft_nodes = drafts_something(draft) ? draft.max_nodes : 0,
                   .runs = options_.repeat};
    run_once(warm_up_of(item.workload), drafting(draft));
  }
  for (int repeat = 0; repeat < options_.repeat; ++repeat) {
    for (std::size_t kind = 0; kind < kinds; ++kind) {
      if (speaks()) {
        std::cerr << fmt::format("{}, draft {}: run {} of {}\n", test_names(tests[kind]).whole,
                                 tests[kind].draft, repeat + 1, options_.repeat);
      }
      runs[kind].push_back(run_once(item.workload, drafting(group_.drafts[kind])));
    }
  }
  const std::vector<std::uint64_t> memory = measure_memory();
  const std::vector<double> bandwidth =
      gather_values(context_.world.all(),
                    runtime::read_bandwidth(deployment_.backend(),
                                            runtime::bandwidth_bytes(deployment_.threads())));
  for (std::size_t kind = 0; kind < kinds && speaks(); ++kind) {
    tests[kind].speeds = runtime::run_figures(runs[kind], weight_bytes_read_);
    tests[kind].latencies = runtime::latency_figures(runs[kind]);
    tests[kind].tasks = runtime::task_figures(runs[kind], item.workload.tasks);
    tests[kind].ranks = runtime::rank_figures(runs[kind]);
    tests[kind].drafts = runtime::draft_totals(runs[kind]);
    tests[kind].failed = runtime::failed_requests(runs[kind]);
    tests[kind].peak_memory = memory;
    tests[kind].bandwidth = bandwidth;
    report.tests.push_back(std::move(tests[kind]));
  }
}

// One request whose last token has a tree of arbitrary guesses behind it, of as many nodes as make
// up the rows; every number of rows in turn.
void BenchSession::time_steps(BenchReport& report) {
  std::vector<StepCost> costs;
  for (const int rows : options_.step_rows) {
    costs.push_back({.setting = report.settings.size() - 1, .rows = rows, .context = kStepContext});
  }
  Workload workload;
  workload.items.push_back({});
  runtime::EngineRequest& request = workload.items.front().request;
  for (int i = 0; i < kStepContext; ++i) {
    request.prompt.push_back(static_cast<std::int32_t>(i * 37 % deployment_.config().vocab_size));
  }
  // Trees near the end of an answer are shallower.
  request.max_new_tokens = 2 * kTimedSteps;
  request.ignore_eos = true;
  FixedTreeDrafter drafter(deployment_.config().vocab_size);
  for (int repeat = -1; repeat < options_.repeat; ++repeat) {  // the first one warms up
    for (StepCost& cost : costs) {
      const JobRun run = run_once(
          workload, {.drafter = &drafter, .shape = FixedTreeDrafter::shape_of(cost.rows - 1)});
      int timed = 0;
      for (const runtime::StepRecord& step : run.replicas.front().steps) {
        if (step.context_rows > 0 || step.generation_rows != cost.rows) continue;
        if (repeat < 0 || ++timed > kTimedSteps) break;
        cost.step_ms.push_back(1e3 * step.seconds);
        cost.forward_ms.push_back(1e3 * step.forward);
      }
    }
  }
  if (!speaks()) return;
  report.step_costs.insert(report.step_costs.end(), costs.begin(), costs.end());
}

BenchSetting BenchSession::setting() {
  const runtime::ModelConfig& config = deployment_.config();
  const runtime::WeightFormats& formats = deployment_.formats();
  const std::string backend = deployment_.backend().description();
  return {.numerics_id = deployment_.numerics_id(),
          .weights = std::string(kernels::format_name(formats.linear)),
          .backend = backend.substr(0, backend.find(',')),
          .threads = deployment_.threads(),
          .ranks = context_.world.size(),
          .tp = deployment_.tp(),
          .exchange = std::string(deployment_.replica().exchange()),
          .drafter = drafter_text(draft_to_load(group_.drafts)),
          .weight_bytes = runtime::weight_bytes(
              config, formats,
              runtime::plan_shards(config, formats, options_.model.virtual_shards, 1, 0)),
          .weight_bytes_read = weight_bytes_read_,
          .kv_bytes = static_cast<std::uint64_t>(num_pages_) * deployment_.kv_page_bytes(),
          .max_batch_tokens = max_rows_,
          .load_seconds = load_seconds_};
}

void BenchSession::run(BenchReport& report) {
  load();
  report.settings.push_back(setting());
  if (speaks()) {
    std::cerr << fmt::format("loaded {}, {}\n", options_.model.model, deployment_.numerics_id());
  }
  for (const BenchCase& item : cases_) run_case(item, report);
  if (!options_.step_rows.empty()) time_steps(report);
}

}  // namespace paceline::launcher
