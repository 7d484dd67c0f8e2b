#include "launcher/command_line.h"

#include <iostream>
#include <optional>

#include "kernels/core/error.h"
#include "launcher/version.h"

namespace paceline::launcher {
namespace {

// Every rank parses the same words, and rank 0 alone answers.
int answer_parse_error(const CLI::App& app, const CLI::ParseError& error,
                       parallel::Signals& signals) {
  parallel::World world(signals);
  if (world.rank() != 0) return error.get_exit_code() == 0 ? kSuccess : kConfigError;
  return app.exit(error) == 0 ? kSuccess : kConfigError;
}

int act(const Action& action, parallel::Signals& signals) {
  parallel::World world(signals);
  Context context{world, signals};
  try {
    return action(context);
  } catch (const ConfigError& error) {
    // Found by all ranks together: they all leave in order, and one tells why.
    if (world.rank() == 0) std::cerr << "paceline: " << error.what() << std::endl;
    return kConfigError;
  } catch (const std::exception& error) {
    world.abort(kFailure, error.what());
  }
}

}  // namespace

int run(int argc, char** argv) {
  std::optional<parallel::Signals> signals(std::in_place);
  CLI::App app("Paceline: tensor-parallel LLM inference, the same tokens always.", "paceline");
  app.set_version_flag("--version", std::string("paceline ") + kVersion);
  app.require_subcommand(1);
  Action action;
  add_generate(app, action);
  add_tokenize(app, action);
  add_perplexity(app, action);
  add_train(app, action);
  add_bench(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return answer_parse_error(app, error, *signals);
  }
  return act(action, *signals);
}

}  // namespace paceline::launcher
