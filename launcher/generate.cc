#include "runtime/job/generate_job.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <iostream>
#include <memory>

#include "kernels/core/error.h"
#include "launcher/command_line.h"
#include "launcher/deployment.h"
#include "launcher/generate_report.h"
#include "launcher/report_file.h"
#include "launcher/work_run.h"
#include "runtime/job/exchange.h"

namespace paceline::launcher {
namespace {

struct GenerateOptions {
  ModelOptions model;
  ClusterOptions cluster;
  BatchOptions batch;
  DraftOptions draft;
  runtime::SamplingParams sampling;
  std::string input;
  std::string output;
  std::string report;
  std::uint64_t seed = 0;
  bool resume = false;
  bool dry_run = false;
  bool token_ids = false;
};

/// What rank 0 alone has of the job.
struct JobFiles {
  std::optional<runtime::JsonlInput> input;
  runtime::OutputState output;
};

// When the job began, as a template's strftime_now() sees it; a resumed job keeps the first one's,
// so that its prompts are the same.
std::chrono::local_seconds start_time(const GenerateOptions& options) {
  if (options.resume) {
    if (const auto saved = runtime::read_manifest(runtime::manifest_path(options.output))) {
      const auto started = saved->options.find("started");
      if (started != saved->options.end()) {
        std::int64_t seconds = 0;
        const std::string& text = started->second;
        const auto parsed = std::from_chars(text.data(), text.data() + text.size(), seconds);
        if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) {
          throw ConfigError("{}: options.started: expected seconds, not \"{}\"",
                            runtime::manifest_path(options.output).string(), text);
        }
        return std::chrono::local_seconds(std::chrono::seconds(seconds));
      }
    }
  }
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm local{};
  localtime_r(&now, &local);
  return std::chrono::local_seconds(std::chrono::seconds(now + local.tm_gmtoff));
}

runtime::OutputManifest manifest_of(const GenerateOptions& options, const Deployment& deployment,
                                    const runtime::JsonlInput& input,
                                    std::chrono::local_seconds started) {
  const runtime::SamplingParams& sampling = options.sampling;
  runtime::OutputManifest manifest;
  manifest.input_sha256 = input.sha256();
  manifest.model_sha256 = deployment.model_sha256();
  manifest.job_seed = options.seed;
  manifest.numerics_id = deployment.numerics_id();
  manifest.options = {{"max_tokens", std::to_string(sampling.max_tokens)},
                      {"temperature", fmt::format("{}", sampling.temperature)},
                      {"top_k", std::to_string(sampling.top_k)},
                      {"top_p", fmt::format("{}", sampling.top_p)},
                      {"stop", runtime::Json(sampling.stop).dump()},
                      {"started", std::to_string(started.time_since_epoch().count())}};
  return manifest;
}

// Everything of the input that can be checked without the model's weights.
void check_requests(const runtime::JsonlInput& input, const runtime::PromptEncoder& encoder) {
  std::int64_t good = 0;
  std::int64_t prompt_tokens = 0;
  std::int64_t new_tokens = 0;
  for (std::size_t index = 0; index < input.size(); ++index) {
    try {
      const runtime::WorkItem item =
          encoder.encode(input.read(index), static_cast<std::int64_t>(index));
      ++good;
      prompt_tokens += static_cast<std::int64_t>(item.prompt.size());
      new_tokens += item.max_new_tokens;
    } catch (const RequestError& error) {
      std::cout << "line " << input.line(index) << ": " << error.field
                << (error.field.empty() ? "" : ": ") << error.what() << "\n";
    }
  }
  std::cout << fmt::format(
      "requests  {} of {} can be served: {} prompt tokens, at most {} new ones\n", good,
      input.size(), prompt_tokens, new_tokens);
}

class GenerateRun {
 public:
  GenerateRun(const GenerateOptions& options, Context& context)
      : options_(options),
        context_(context),
        deployment_(context.world, options.model, options.cluster, options.draft) {}

  int run();

 private:
  void prepare();
  int describe();
  bool nothing_left();
  void serve_all(const runtime::SchedulerLimits& limits);
  int finish();
  int sum_up(const std::vector<int>& signals, double seconds,
             const std::vector<std::uint64_t>& peak_memory);
  bool is_server() const { return context_.world.rank() == 0; }

  const GenerateOptions& options_;
  Context& context_;
  Deployment deployment_;
  std::int32_t num_pages_ = 0;
  JobFiles files_;
  std::unique_ptr<runtime::PromptEncoder> encoder_;  // on leaders
  std::optional<runtime::GenerateJob> job_;          // on rank 0
  std::vector<runtime::ReplicaReport> reports_;      // on rank 0
  std::chrono::steady_clock::time_point loaded_;
  double load_seconds_ = 0;
};

void GenerateRun::prepare() {
  // The other ranks wait while rank 0 reads inputs of any size.
  constexpr auto kPreparePatience = std::chrono::minutes(30);
  context_.world.enter("configure", kPreparePatience);
  num_pages_ = deployment_.kv_pages(options_.batch.kv_memory, options_.batch.max_batch);
  together(context_.world, [&] {
    if (!deployment_.leads_replica()) return;
    const auto started = start_time(options_);
    encoder_ = std::make_unique<runtime::PromptEncoder>(
        options_.model.model,
        runtime::PromptEncoder::Limits{
            .vocab_size = deployment_.config().vocab_size,
            .max_positions = deployment_.config().max_positions,
            .cache_tokens = static_cast<std::int64_t>(num_pages_) * runtime::kPageSize,
            .job_seed = options_.seed,
            .now = started});
    if (!is_server()) return;
    runtime::check_sampling(options_.sampling);
    files_.input = runtime::JsonlInput::open(
        options_.input,
        {.defaults = options_.sampling, .vocab_size = deployment_.config().vocab_size});
    files_.output = runtime::inspect_output(
        options_.output, options_.resume,
        manifest_of(options_, deployment_, *files_.input, started), *files_.input);
    if (options_.dry_run) return;
    check_writable("--report", options_.report);
    job_.emplace(*files_.input, *encoder_, files_.output, runtime::OutputFile::open(files_.output),
                 runtime::ResultFormat{.model = model_name(options_.model.model),
                                       .token_ids = options_.token_ids});
  });
}

int GenerateRun::describe() {
  const std::string plan = deployment_.describe(num_pages_);
  if (is_server()) {
    std::cout << plan;
    check_requests(*files_.input, *encoder_);
    std::cout.flush();
  }
  context_.world.all().barrier();
  return kSuccess;
}

int GenerateRun::run() {
  prepare();
  if (options_.dry_run) return describe();
  loaded_ = std::chrono::steady_clock::now();
  if (nothing_left()) return finish();

  const runtime::SchedulerLimits limits =
      scheduler_limits(options_.batch, num_pages_, deployment_.drafting().shape());
  if (is_server()) {
    std::cerr << "loading " << options_.model.model << " on " << context_.world.size()
              << " rank(s), "
              << (deployment_.tp() > 1 ? "exchange by " + deployment_.exchange_text() + ", " : "")
              << deployment_.numerics_id() << ", " << deployment_.backend().description() << "\n";
  }
  deployment_.load({.max_rows = limits.max_rows, .max_sampled = limits.max_sampled}, num_pages_);
  const auto loaded = std::chrono::steady_clock::now();
  load_seconds_ = std::chrono::duration<double>(loaded - loaded_).count();
  loaded_ = loaded;
  serve_all(limits);
  return finish();
}

// A resumed job whose requests are all answered needs no weights.
bool GenerateRun::nothing_left() {
  const std::uint8_t none = is_server() && job_->finished() == job_->totals().requests ? 1 : 0;
  return gather_values(context_.world.all(), none).front() != 0;
}

void GenerateRun::serve_all(const runtime::SchedulerLimits& limits) {
  WorkRun work{.limits = limits};
  if (deployment_.leads_replica()) work.tokenizer = encoder_->tokenizer();
  std::optional<ProgressLine> progress;
  if (is_server()) {
    progress.emplace(*job_);
    work.tick = [&](const auto& reports) { progress->tick(reports); };
    work.callbacks = {.next = [this](std::size_t wanted) { return job_->next(wanted); },
                      .exhausted = [this] { return job_->exhausted(); },
                      .complete =
                          [this](const runtime::WorkResult& result) {
                            context_.world.enter("output");
                            job_->complete(result);
                          }};
  }
  reports_ = run_work(context_, deployment_, work);
  if (!is_server()) return;
  context_.world.enter("output");
  job_->finish();
}

int GenerateRun::finish() {
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - loaded_).count();
  // Ranks that are done early wait here for the last replica; a dead one is noticed all the same.
  constexpr auto kFinishPatience = std::chrono::hours(24 * 30);
  context_.world.enter("finish", kFinishPatience);
  const std::vector<std::uint64_t> peak_memory = gather_peak_memory(context_.world.all());
  const std::vector<int> signals = gather_values(context_.world.all(), context_.signals.last());
  const int code = is_server() ? sum_up(signals, seconds, peak_memory) : kSuccess;
  // Every rank leaves with rank 0's code.
  return gather_values(context_.world.all(), code).front();
}

int GenerateRun::sum_up(const std::vector<int>& signals, double seconds,
                        const std::vector<std::uint64_t>& peak_memory) {
  GenerateFigures figures{.totals = job_->totals(),
                          .replicas = reports_,
                          .peak_memory = peak_memory,
                          .load_seconds = load_seconds_,
                          .run_seconds = seconds,
                          .numerics_id = deployment_.numerics_id(),
                          .backend = deployment_.backend().description(),
                          .drafters = deployment_.drafting().kinds(),
                          .ranks = context_.world.size(),
                          .tp = deployment_.tp(),
                          .checksum = {}};
  const bool complete = job_->finished() == job_->totals().requests;
  if (complete) figures.checksum = job_->checksum();
  std::cerr << summary_text(figures);
  int code = kSuccess;
  if (!complete) {
    std::cerr << "ended by a signal; the same command with --resume goes on\n";
    const auto signal = std::ranges::find_if(signals, [](int number) { return number != 0; });
    code = signal != signals.end() ? 128 + *signal : kTerminated;
  }
  try {
    if (!options_.report.empty()) write_report(options_.report, figures);
  } catch (const ConfigError& error) {
    std::cerr << "paceline: " << error.what() << "\n";
    if (complete) code = kFailure;
  }
  return code;
}

void add_sampling_options(CLI::App& command, GenerateOptions& options) {
  runtime::SamplingParams& sampling = options.sampling;
  const auto add = [&](const char* name, auto& value, const char* help) {
    command.add_option(name, value, help)
        ->capture_default_str()
        ->group("Sampling (a request's own values win)");
  };
  add("--max-tokens", sampling.max_tokens, "New tokens per request at most");
  add("--temperature", sampling.temperature, "0: greedy");
  add("--top-k", sampling.top_k, "Keep that many most probable tokens; 0: all");
  add("--top-p", sampling.top_p, "Keep the most probable tokens up to this mass; 1: all");
  add("--seed", options.seed, "Job seed: a request without a seed gets a hash of this and its id");
  command
      .add_option("--stop", sampling.stop,
                  "Text that ends an answer and is left out of it; may be "
                  "given several times")
      ->option_text("STR ...")
      ->allow_extra_args(false)
      ->group("Sampling (a request's own values win)");
}

}  // namespace

void add_generate(CLI::App& app, Action& action) {
  auto options = std::make_shared<GenerateOptions>();
  CLI::App* command = app.add_subcommand("generate", "Answer a file of prompts");
  command->add_option("--input", options->input, "Requests, one JSON object a line")
      ->required()
      ->option_text("FILE.jsonl");
  command
      ->add_option("--output", options->output,
                   "Answers, one JSON object a line; - is standard output")
      ->required()
      ->option_text("FILE.jsonl");
  command->add_flag("--resume", options->resume, "Go on with an output that was interrupted");
  command->add_flag("--dry-run", options->dry_run,
                    "Read and check everything, print the plan, stop");
  command->add_flag("--token-ids", options->token_ids, "Write the generated token ids as well");
  command->add_option("--report", options->report, "Write all figures as JSON")
      ->option_text("FILE.json");
  add_options(*command, options->model);
  add_options(*command, options->cluster);
  add_options(*command, options->batch);
  add_options(*command, options->draft);
  add_sampling_options(*command, *options);
  command->callback([options, &action] {
    action = [options](Context& context) { return GenerateRun(*options, context).run(); };
  });
}

}  // namespace paceline::launcher
