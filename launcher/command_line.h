#pragma once

#include <CLI/CLI.hpp>
#include <functional>

#include "parallel/signals.h"
#include "parallel/world.h"

namespace paceline::launcher {

/// Exit codes of `paceline`. A job ended by a signal exits with 128 + its number.
inline constexpr int kSuccess = 0;
inline constexpr int kFailure = 1;       // a broken invariant, a lost rank
inline constexpr int kConfigError = 2;   // a bad option, file or key: nothing was started
inline constexpr int kTerminated = 143;  // by SIGTERM: what had finished is in the output

/// What a subcommand needs of the process.
struct Context {
  parallel::World& world;
  parallel::Signals& signals;
};

/// A subcommand's work on every rank, returning the exit code; set by its options' callback.
using Action = std::function<int(Context&)>;

/// Each adds a subcommand, which sets `action` if it is the one chosen.
void add_generate(CLI::App& app, Action& action);
void add_tokenize(CLI::App& app, Action& action);
void add_perplexity(CLI::App& app, Action& action);
void add_train(CLI::App& app, Action& action);
void add_bench(CLI::App& app, Action& action);
void add_bench_exchange(CLI::App& bench, Action& action);

/// The `paceline` command.
int run(int argc, char** argv);

}  // namespace paceline::launcher
