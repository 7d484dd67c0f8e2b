#pragma once

#include "drafter/recurrent_drafter.h"
#include "runtime/drafting/model_embedding.h"
#include "tests/drafter/random_head.h"
#include "tests/runtime/cuda/few_requests.h"

namespace paceline::runtime {

/// A tiny model with a ReDrafter head of random weights.
class DraftingRank {
 public:
  DraftingRank(const drafter::DraftShape& shape, kernels::Backend& backend,
               parallel::Communicator& communicator, const SchedulerLimits& limits = kAmple)
      : rank_("llama_int4", {.kv = kernels::KvFormat::kBf16, .limits = limits}, backend,
              communicator),
        embedding_(rank_.model()),
        drafter_(head_config(rank_.config()), drafter::RandomWeights(), embedding_, backend),
        engine_(rank_.model(), backend, communicator, limits, rank_.cache().pool(),
                {.terminate = [] { return false; }, .enter_phase = [](std::string_view) {}},
                {.drafter = &drafter_, .shape = shape}) {}

  Engine& engine() { return engine_; }

 private:
  static drafter::DrafterConfig head_config(const ModelConfig& model) {
    drafter::DrafterConfig config;
    config.vocab_size = model.vocab_size;
    config.hidden_size = config.exit_dim = model.hidden_size;
    config.num_draft_layers = 1;
    config.rnn = true;
    return config;
  }

  FixtureRank rank_;
  ModelEmbedding embedding_;
  drafter::RecurrentDrafter drafter_;
  Engine engine_;
};

}  // namespace paceline::runtime
