#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "drafter/recurrent_drafter.h"
#include "kernels/api.h"
#include "parallel/communicator.h"
#include "runtime/drafting/drafter_files.h"
#include "runtime/drafting/model_embedding.h"
#include "runtime/engine/kv_cache.h"
#include "runtime/files/json.h"
#include "runtime/model/llama.h"

namespace paceline::runtime {

/// Data made by Apple's own ml-recurrent-drafter: see the README there.
inline std::filesystem::path apple_golden_dir() {
  return std::filesystem::path(PACELINE_TEST_DATA) / "apple_golden";
}

inline constexpr const char* kAppleDrafters[] = {"rnn_exit_2h", "rnn_exit_h", "sum_exit_2h"};

/// The small base model of those data on one rank, and one of the drafters.
class AppleRank {
 public:
  AppleRank(const std::string& drafter, kernels::Backend& backend,
            parallel::Communicator& communicator,
            WeightChoice drafter_weights = WeightChoice::kAuto)
      : config_(read_model_config(apple_golden_dir() / "base")),
        checkpoint_(Checkpoint::open(apple_golden_dir() / "base")),
        formats_(choose_formats(checkpoint_, config_, WeightChoice::kFp32)),
        plan_(plan_shards(config_, formats_, 8, communicator.size(), communicator.rank())),
        cache_(config_, plan_, kernels::KvFormat::kFp32, 16, backend),
        model_(config_, checkpoint_, plan_, formats_, {.max_rows = 512, .max_sampled = 512},
               backend, communicator),
        embedding_(model_),
        files_(DrafterFiles::open(apple_golden_dir() / drafter, drafter_weights,
                                  {"base", config_, checkpoint_})),
        drafter_(files_.config(), files_, embedding_, backend) {}

  LlamaModel& model() { return model_; }
  const KvCache& cache() const { return cache_; }
  drafter::RecurrentDrafter& drafter() { return drafter_; }

 private:
  ModelConfig config_;
  Checkpoint checkpoint_;
  WeightFormats formats_;
  ShardPlan plan_;
  KvCache cache_;
  LlamaModel model_;
  ModelEmbedding embedding_;
  DrafterFiles files_;
  drafter::RecurrentDrafter drafter_;
};

}  // namespace paceline::runtime
