#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "launcher/options.h"

namespace paceline::launcher {

/// What `paceline bench` is asked to measure.
struct BenchOptions {
  ModelOptions model;
  ClusterOptions cluster;
  BatchOptions batch;
  DraftOptions draft;
  std::vector<std::int64_t> prompt_tokens = {512};
  std::int64_t new_tokens = 128;
  std::vector<int> concurrency = {1};
  std::string input;
  int num_prompts = 0;
  bool ignore_eos = false;
  double request_rate = 0;
  int repeat = 5;
  float temperature = 0;
  std::uint64_t seed = 0;
  double simulate_acceptance = 0;
  std::vector<int> step_rows;
  std::vector<std::string> sweep;
  std::string json;
  std::string csv;
  bool markdown = false;
};

/// What is measured with one loaded model, its runs in turn.
struct BenchGroup {
  BenchOptions options;
  std::vector<DraftOptions> drafts;  // they differ in shape and max_nodes only; never empty
};

/// Declares the options of `paceline bench`.
void add_options(CLI::App& command, BenchOptions& options);

/// The combinations of `options.sweep`, first key slowest, gathered where one load serves several.
/// Each value is read as the command's option of that name would read it; `options` is what
/// `command` has bound and ends as it was. Throws ConfigError naming the key.
std::vector<BenchGroup> expand_sweep(CLI::App& command, BenchOptions& options);

}  // namespace paceline::launcher
