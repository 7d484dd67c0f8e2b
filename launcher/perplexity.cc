#include "runtime/model/perplexity.h"

#include <iostream>

#include "kernels/core/error.h"
#include "launcher/command_line.h"
#include "launcher/deployment.h"
#include "runtime/files/json.h"
#include "runtime/tokenizer/tokenizer.h"

namespace paceline::launcher {
namespace {

using runtime::Json;

struct PerplexityOptions {
  ModelOptions model;
  ClusterOptions cluster;
  std::string text;
  std::int64_t context = 512;
  bool token_ids = false;
};

constexpr std::int64_t kRowsAtOnce = 64;

std::vector<std::int32_t> read_ids(const PerplexityOptions& options,
                                   const runtime::ModelConfig& config) {
  if (!options.token_ids) {
    const runtime::Tokenizer tokenizer = runtime::Tokenizer::load(options.model.model);
    const std::string text = runtime::read_file(options.text);
    const runtime::TextSegment segment{text, /*trusted=*/false};
    const std::vector<std::int32_t> ids =
        tokenizer.encode(std::span(&segment, 1), /*add_special_tokens=*/true);
    for (const std::int32_t id : ids) {
      if (id < config.vocab_size) continue;
      throw ConfigError("{}: the tokenizer gives token {}, the model has {} of them",
                        options.model.model, id, config.vocab_size);
    }
    return ids;
  }
  const Json json = runtime::read_json(options.text);
  std::vector<std::int32_t> ids;
  if (!json.is_array()) throw ConfigError("{}: expected a list of token ids", options.text);
  for (const Json& id : json) {
    if (!id.is_number_integer() || id.get<std::int64_t>() < 0 ||
        id.get<std::int64_t>() >= config.vocab_size) {
      throw ConfigError("{}: {} is not a token id below {}", options.text, id.dump(),
                        config.vocab_size);
    }
    ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

int run_perplexity(const PerplexityOptions& options, Context& context) {
  context.signals.end_at_once();
  Deployment deployment(context.world, options.model, options.cluster);
  std::vector<std::int32_t> ids;
  together(context.world, [&] {
    const std::int64_t longest = deployment.config().max_positions;
    if (options.context < 2 || options.context > longest) {
      throw ConfigError("--context {}: expected 2 to {}, the model's longest context",
                        options.context, longest);
    }
    if (deployment.num_replicas() != 1) throw ConfigError("--tp: perplexity runs one replica");
    ids = read_ids(options, deployment.config());
    if (ids.size() < 2) throw ConfigError("{}: fewer than two tokens", options.text);
  });
  const auto pages =
      static_cast<std::int32_t>((options.context + runtime::kPageSize - 1) / runtime::kPageSize);
  deployment.load({.max_rows = kRowsAtOnce, .max_sampled = kRowsAtOnce}, pages);
  context.world.enter("perplexity");
  const bool speaks = context.world.rank() == 0;
  const runtime::PerplexityResult result =
      runtime::perplexity(deployment.model(), deployment.backend(), deployment.cache(), ids,
                          options.context, kRowsAtOnce, [&](std::int64_t done) {
                            if (speaks)
                              std::cerr << "scored " << done << " of " << ids.size() << " tokens\n";
                          });
  if (speaks) {
    runtime::OrderedJson report;
    report["model"] = options.model.model;
    report["numerics_id"] = deployment.numerics_id();
    report["context"] = options.context;
    report["tokens_scored"] = result.tokens;
    report["nll_per_token"] = result.nll;
    report["perplexity"] = result.perplexity();
    std::cout << report.dump() << std::endl;
  }
  return kSuccess;
}

}  // namespace

void add_perplexity(CLI::App& app, Action& action) {
  auto options = std::make_shared<PerplexityOptions>();
  CLI::App* command = app.add_subcommand(
      "perplexity", "Mean negative log-likelihood per token of a text: what a weight format costs");
  add_options(*command, options->model);
  add_options(*command, options->cluster);
  command->add_option("--text", options->text, "UTF-8 text file")->required()->option_text("FILE");
  command->add_option("--context", options->context, "Tokens per window; windows do not overlap")
      ->capture_default_str();
  command->add_flag("--token-ids", options->token_ids,
                    "The file is a JSON list of token ids instead of text");
  command->callback([options, &action] {
    action = [options](Context& context) { return run_perplexity(*options, context); };
  });
}

}  // namespace paceline::launcher
