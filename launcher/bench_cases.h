#pragma once

#include <string>
#include <vector>

#include "launcher/bench_options.h"
#include "parallel/world.h"
#include "runtime/bench/workload.h"
#include "runtime/model/config.h"

namespace paceline::launcher {

/// A load of `paceline bench` and what it is called.
struct BenchCase {
  std::string input;               // the name of the input's file; empty: random prompts
  std::int64_t prompt_tokens = 0;  // of each random prompt
  runtime::Workload workload;      // of the whole job
};

/// What the options ask for: every prompt length, or the input, at every concurrency. Reads files;
/// for rank 0. Throws ConfigError.
std::vector<BenchCase> make_cases(const BenchOptions& options, const runtime::ModelConfig& config);

/// Rank 0's cases on every rank.
std::vector<BenchCase> share_cases(parallel::World& world, std::vector<BenchCase> cases);

/// A short version that touches what the whole will touch: no more requests than run at once, with
/// few tokens each.
runtime::Workload warm_up_of(const runtime::Workload& workload);

}  // namespace paceline::launcher
