#include "launcher/bench_options.h"

#include <algorithm>

#include "drafter/drafter.h"
#include "kernels/core/error.h"
#include "launcher/drafting.h"

namespace paceline::launcher {
namespace {

constexpr char kLoad[] = "Load";
constexpr char kReport[] = "Report";

struct SweepKey {
  std::string name;
  std::vector<std::string> values;
};

std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

SweepKey parse_key(const std::string& text) {
  constexpr std::string_view kKeys[] = {"threads", "isa",         "exchange",
                                        "weights", "kv-format",   "attention",
                                        "draft",   "draft-nodes", "max-batch-tokens"};
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || equals + 1 == text.size()) {
    throw ConfigError("--sweep {}: expected KEY=VALUE,VALUE...", text);
  }
  SweepKey key{text.substr(0, equals), split_list(text.substr(equals + 1))};
  if (key.name == "tp" || key.name == "ranks") {
    throw ConfigError(
        "--sweep {}: ranks are mpirun's; run `mpirun -n N paceline bench` for each number and give "
        "all their --json files to tools/plot_bench.py",
        text);
  }
  if (std::ranges::count(kKeys, key.name) == 0) {
    throw ConfigError(
        "--sweep {}: expected one of threads, isa, exchange, weights, kv-format, "
        "attention, max-batch-tokens, draft, draft-nodes",
        text);
  }
  return key;
}

void set(CLI::App& command, const std::string& key, const std::string& value) {
  CLI::Option* option = command.get_option("--" + key);
  option->clear();
  option->add_result(value);
  try {
    option->run_callback();
  } catch (const CLI::ParseError& error) {
    throw ConfigError("--sweep {}: {}", key, error.what());
  }
}

// Options that one loaded model cannot serve both of differ in more than the shape of drafts.
bool share_a_model(const BenchOptions& a, const BenchOptions& b) {
  DraftOptions of_a = a.draft;
  of_a.shape = b.draft.shape;
  of_a.max_nodes = b.draft.max_nodes;
  return a.model == b.model && a.cluster == b.cluster && a.batch == b.batch && of_a == b.draft;
}

void check_draft(const BenchOptions& options) {
  const DraftOptions& draft = options.draft;
  const bool simulated = options.simulate_acceptance > 0;
  if (simulated && (draft.drafter == "none" || draft.lookup)) {
    throw ConfigError("--simulate-acceptance: needs a --drafter, and no --lookup");
  }
  if (draft.shape == "off") return;
  if (simulated && draft.shape == "auto") {
    throw ConfigError("--simulate-acceptance: needs a --draft of given shape, not auto");
  }
  const drafter::DraftShape shape = draft_shape(draft);
  if (simulated && options.simulate_acceptance > shape.depth + 1) {
    throw ConfigError(
        "--simulate-acceptance {}: drafts of {} tokens give at most {} a step; raise --draft",
        options.simulate_acceptance, shape.depth, shape.depth + 1);
  }
}

void add_load_options(CLI::App& command, BenchOptions& options) {
  const auto add = [&](const char* name, auto& value, const char* help) {
    return command.add_option(name, value, help)->capture_default_str()->group(kLoad);
  };
  auto* prompts =
      add("--prompt-tokens", options.prompt_tokens, "Lengths of random prompts, one test each");
  prompts->delimiter(',')->allow_extra_args(false);
  prompts->check(CLI::Range(1, 1 << 24))->option_text("N,N,...");
  add("--new-tokens", options.new_tokens, "New tokens per request; with --input, at most")
      ->check(CLI::Range(1, 1 << 24));
  add("--concurrency", options.concurrency, "Requests in flight in the whole job, one test each")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::Range(1, 4096))
      ->option_text("N,N,...");
  add("--input", options.input,
      "Requests as `paceline generate` reads them, instead of random prompts")
      ->excludes(prompts)
      ->option_text("FILE.jsonl");
  add("--num-prompts", options.num_prompts,
      "Requests of a run; 0: as many as --concurrency, or all of --input")
      ->check(CLI::Range(0, 1 << 24));
  command
      .add_flag("--ignore-eos", options.ignore_eos,
                "Go on after end of sequence (always so for random prompts)")
      ->group(kLoad);
  add("--request-rate", options.request_rate,
      "Requests that come per second, at random times; 0: a new one whenever one has ended")
      ->check(CLI::NonNegativeNumber);
  add("--temperature", options.temperature, "0: greedy; lines of --input may have their own")
      ->check(CLI::Range(0.0, 100.0));
  add("--seed", options.seed, "Of prompts, arrival times and sampling");
}

}  // namespace

void add_options(CLI::App& command, BenchOptions& options) {
  add_options(command, options.model);
  add_options(command, options.cluster);
  add_options(command, options.batch);
  command.remove_option(command.get_option("--max-batch"));  // --concurrency says it
  add_options(command, options.draft);
  command
      .add_option("--simulate-acceptance", options.simulate_acceptance,
                  "Accept drafts as if a step gave so many tokens; the answers are not the model's")
      ->check(CLI::Range(1.0, drafter::kMaxDraftDepth + 1.0))
      ->option_text("TOKENS_PER_STEP")
      ->group(kLoad);
  add_load_options(command, options);
  command
      .add_option("--repeat", options.repeat, "Measured runs of each test, after one to warm up")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str()
      ->group(kLoad);
  command
      .add_option("--step-rows", options.step_rows,
                  "Also time steps of so many rows: one request with a tree of arbitrary guesses")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::Range(1, 4 * drafter::kMaxDraftWidth + 1))
      ->option_text("N,N,...")
      ->group(kLoad);
  command
      .add_option("--sweep", options.sweep,
                  "Measure with each of these values of another option: threads, isa, exchange, "
                  "weights, kv-format, attention, max-batch-tokens, draft (also off), "
                  "draft-nodes; may be given several times")
      ->allow_extra_args(false)
      ->option_text("KEY=V,V,... ...")
      ->group(kLoad);
  command.add_option("--json", options.json, "Write everything as JSON")
      ->option_text("FILE")
      ->group(kReport);
  command.add_option("--csv", options.csv, "Write one line for each test as CSV")
      ->option_text("FILE")
      ->group(kReport);
  command.add_flag("--markdown", options.markdown, "Print a table to paste, and nothing else")
      ->group(kReport);
}

std::vector<BenchGroup> expand_sweep(CLI::App& command, BenchOptions& options) {
  const BenchOptions plain = options;
  std::vector<BenchOptions> all = {plain};
  for (const std::string& text : plain.sweep) {
    const SweepKey key = parse_key(text);
    if (key.name.starts_with("draft") && plain.draft.drafter == "none" && !plain.draft.lookup) {
      throw ConfigError("--sweep {}: nothing drafts; give --drafter or --lookup", text);
    }
    std::vector<BenchOptions> longer;
    for (const BenchOptions& base : all) {
      for (const std::string& value : key.values) {
        options = base;
        set(command, key.name, value);
        longer.push_back(options);
      }
    }
    all = std::move(longer);
  }
  options = plain;

  std::vector<BenchGroup> groups;
  for (const BenchOptions& one : all) {
    check_draft(one);
    const auto group = std::ranges::find_if(
        groups, [&](const BenchGroup& g) { return share_a_model(g.options, one); });
    if (group == groups.end()) {
      groups.push_back({one, {one.draft}});
    } else if (std::ranges::count(group->drafts, one.draft) == 0) {
      group->drafts.push_back(one.draft);
    }
  }
  return groups;
}

}  // namespace paceline::launcher
