#pragma once

#include <memory>
#include <optional>

#include "drafter/drafter.h"
#include "drafter/lookup.h"
#include "drafter/merged_drafter.h"
#include "kernels/api.h"
#include "launcher/options.h"
#include "runtime/drafting/drafter_files.h"
#include "runtime/drafting/model_embedding.h"
#include "runtime/model/llama.h"

namespace paceline::launcher {

/// What `--drafter` and its companions ask for: checked before weights load, made after.
class Drafting {
 public:
  /// Throws ConfigError for a shape out of bounds, or a drafter that cannot be read or does not fit
  /// the model. `model` must outlive `load`.
  Drafting(const DraftOptions& options, const runtime::DraftedModel& model);

  /// Loads the drafter, whole on every rank, for the loaded model.
  void load(runtime::LlamaModel& model, kernels::Backend& backend);

  /// Null: nothing is drafted.
  drafter::Drafter* drafter();
  const drafter::DraftShape& shape() const { return shape_; }
  bool shared_noise() const { return shared_noise_; }

 private:
  drafter::DraftShape shape_;
  bool shared_noise_ = true;
  std::optional<runtime::DrafterFiles> files_;
  std::optional<runtime::ModelEmbedding> embedding_;
  std::unique_ptr<drafter::Drafter> recurrent_;
  std::optional<drafter::LookupDrafter> lookup_;
  std::optional<drafter::MergedDrafter> merged_;
};

/// "4x5" to width 4 and depth 5; ConfigError unless both are within bounds.
drafter::DraftShape parse_draft_shape(const std::string& text);

}  // namespace paceline::launcher
