#include "launcher/bench_cases.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>

#include "kernels/core/error.h"
#include "launcher/deployment.h"
#include "runtime/engine/wire.h"
#include "runtime/job/prompt_encoder.h"
#include "runtime/requests/jsonl_input.h"

namespace paceline::launcher {
namespace {

using runtime::EngineRequest;
using runtime::Workload;

/// Builds the cases of one model.
class CaseMaker {
 public:
  CaseMaker(const BenchOptions& options, const runtime::ModelConfig& config)
      : options_(options),
        config_(config),
        // What is in flight at once is checked when the cache's size is known.
        encoder_(options.model.model, {.vocab_size = config.vocab_size,
                                       .max_positions = config.max_positions,
                                       .cache_tokens = std::numeric_limits<std::int64_t>::max(),
                                       .job_seed = options.seed,
                                       .now = {}}) {
    sampling_.temperature = options.temperature;
    sampling_.max_tokens = options.new_tokens;
    runtime::check_sampling(sampling_);
  }

  std::vector<BenchCase> make() const {
    std::vector<BenchCase> cases;
    for (const int concurrency : options_.concurrency) {
      if (!options_.input.empty()) {
        const std::string name = std::filesystem::path(options_.input).stem().string();
        cases.push_back({name, 0, input_workload(concurrency)});
        continue;
      }
      for (const std::int64_t length : options_.prompt_tokens) {
        cases.push_back({"", length, random_workload(length, concurrency)});
      }
    }
    return cases;
  }

 private:
  Workload random_workload(std::int64_t length, int concurrency) const {
    if (length + options_.new_tokens > config_.max_positions) {
      throw ConfigError("--prompt-tokens {} and --new-tokens {}: the model's context is {}", length,
                        options_.new_tokens, config_.max_positions);
    }
    const std::vector<std::int32_t> ids = runtime::ordinary_tokens(config_, encoder_.tokenizer());
    const int count = options_.num_prompts > 0 ? options_.num_prompts : concurrency;
    Workload workload;
    workload.tasks = {"random"};
    for (int index = 0; index < count; ++index) {
      const auto number = static_cast<std::uint64_t>(index);
      workload.items.push_back(
          {.request = {.uid = number,
                       .prompt = runtime::random_prompt(ids, length, options_.seed, number),
                       .max_new_tokens = static_cast<std::int32_t>(options_.new_tokens),
                       .temperature = options_.temperature,
                       .seed = options_.seed + number,
                       .ignore_eos = true}});
    }
    return finished(std::move(workload), concurrency);
  }

  Workload input_workload(int concurrency) const {
    const auto input = runtime::JsonlInput::open(
        options_.input, {.defaults = sampling_, .vocab_size = config_.vocab_size});
    if (input.size() == 0) throw ConfigError("--input {}: holds no request", options_.input);
    const std::size_t count =
        options_.num_prompts > 0 ? static_cast<std::size_t>(options_.num_prompts) : input.size();
    Workload workload;
    for (std::size_t index = 0; index < count; ++index) {
      add_line(input, index % input.size(), workload);
    }
    return finished(std::move(workload), concurrency);
  }

  void add_line(const runtime::JsonlInput& input, std::size_t line, Workload& workload) const {
    try {
      const runtime::Request request = input.read(line);
      runtime::WorkItem item = encoder_.encode(request, static_cast<std::int64_t>(line));
      const auto most = static_cast<std::int32_t>(options_.new_tokens);
      workload.items.push_back(
          {.request = {.uid = workload.items.size(),
                       .prompt = std::move(item.prompt),
                       .max_new_tokens = std::min(item.max_new_tokens, most),
                       .temperature = item.temperature,
                       .top_k = item.top_k,
                       .top_p = item.top_p,
                       .seed = item.seed,
                       .ignore_eos = options_.ignore_eos || options_.simulate_acceptance > 0,
                       .speculative = item.speculative},
           .task = task_of(request, workload.tasks)});
    } catch (const RequestError& error) {
      throw ConfigError("--input {}: line {}: {}", options_.input, input.line(line), error.what());
    }
  }

  // The number of a request's metadata.category among those that came so far.
  static std::int32_t task_of(const runtime::Request& request, std::vector<std::string>& tasks) {
    std::string name = "other";
    if (const auto metadata = request.carried.find("metadata"); metadata != request.carried.end()) {
      const auto category = metadata->find("category");
      if (category != metadata->end() && category->is_string()) {
        name = category->get<std::string>();
      }
    }
    const auto known = std::ranges::find(tasks, name);
    if (known == tasks.end()) tasks.push_back(name);
    return static_cast<std::int32_t>(std::ranges::find(tasks, name) - tasks.begin());
  }

  Workload finished(Workload workload, int concurrency) const {
    workload.concurrency = concurrency;
    workload.open = options_.request_rate > 0;
    if (!workload.open) return workload;
    const std::vector<double> times =
        runtime::arrival_times(workload.items.size(), options_.request_rate, options_.seed);
    for (std::size_t i = 0; i < times.size(); ++i) workload.items[i].arrival = times[i];
    return workload;
  }

  const BenchOptions& options_;
  const runtime::ModelConfig& config_;
  runtime::PromptEncoder encoder_;
  runtime::SamplingParams sampling_;
};

}  // namespace

std::vector<BenchCase> make_cases(const BenchOptions& options, const runtime::ModelConfig& config) {
  return CaseMaker(options, config).make();
}

std::vector<BenchCase> share_cases(parallel::World& world, std::vector<BenchCase> cases) {
  runtime::WireWriter writer;
  writer.value(static_cast<std::uint64_t>(cases.size()));
  for (const BenchCase& item : cases) {
    writer.text(item.input);
    writer.value(item.prompt_tokens);
    writer.list(runtime::encode_workload(item.workload));
  }
  const std::vector<std::byte> mine = writer.take();
  const std::string text(reinterpret_cast<const char*>(mine.data()), mine.size());
  const std::string told = gather_texts(world.all(), world.rank() == 0 ? text : "").front();
  runtime::WireReader reader(std::as_bytes(std::span(told)));
  cases.resize(reader.value<std::uint64_t>());
  for (BenchCase& item : cases) {
    item.input = reader.text();
    item.prompt_tokens = reader.value<std::int64_t>();
    item.workload = runtime::decode_workload(reader.list<std::byte>());
  }
  reader.done();
  return cases;
}

runtime::Workload warm_up_of(const runtime::Workload& workload) {
  constexpr std::int32_t kTokens = 8;
  Workload first = workload;
  first.open = false;
  const auto at_once = static_cast<std::size_t>(first.concurrency);
  if (first.items.size() > at_once) first.items.resize(at_once);
  for (Workload::Item& item : first.items) {
    item.request.max_new_tokens = std::min(item.request.max_new_tokens, kTokens);
  }
  return first;
}

}  // namespace paceline::launcher
