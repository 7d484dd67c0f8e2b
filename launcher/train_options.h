#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "drafter/training/trainer.h"
#include "kernels/core/formats.h"
#include "launcher/options.h"

namespace paceline::launcher {

struct TrainOptions {
  ModelOptions model;
  ClusterOptions cluster;
  BatchOptions batch{.max_batch = 64};
  DraftOptions draft;
  std::string output;
  std::string from;
  bool resume = false;
  std::uint64_t seed = 0;

  std::vector<std::string> data;
  std::int64_t synthesize_tokens = 0;
  std::int64_t answer_tokens = 384;
  std::int64_t held_out = 128;

  std::string kind = "redrafter";
  std::int64_t draft_vocab = 8192;
  std::int64_t layers = 2;
  std::int64_t exit_dim = 0;
  bool rnn = true;
  std::string save_as = "bf16";

  std::uint64_t steps = 0;
  double minutes = 0;
  std::uint64_t epochs = 0;
  int depth = 5;
  double depth_share = 1;
  std::int64_t batch_positions = 1024;
  std::int64_t group_positions = 65536;
  std::uint64_t cache_memory = 0;
  float learning_rate = 2e-3f;
  std::string loss = "kl";
  std::string precision = "auto";
  double checkpoint_minutes = 10;
  std::uint64_t evaluate_every = 250;
};

void add_options(CLI::App& command, TrainOptions& options);

/// The trainer's options but for the schedule's length and warm-up. Throws ConfigError for a
/// precision that the CPU lacks.
drafter::TrainingOptions training_options(const TrainOptions& options);

/// What a model card says of the options, as far as they decide the result.
std::vector<std::pair<std::string, std::string>> recipe(const TrainOptions& options,
                                                        const drafter::Trainer& trainer);

/// The format of --save-as.
kernels::WeightFormat saved_format(const TrainOptions& options);

}  // namespace paceline::launcher
