#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "drafter/drafter.h"
#include "drafter/lookup.h"
#include "drafter/merged_drafter.h"
#include "kernels/api.h"
#include "launcher/options.h"
#include "runtime/drafting/draft_planner.h"
#include "runtime/drafting/drafter_files.h"
#include "runtime/drafting/model_embedding.h"
#include "runtime/engine/engine.h"
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
  /// `--draft auto`: measures what drafts and steps cost. All ranks of a replica call it, after
  /// `load`.
  void measure(runtime::LlamaModel& model, kernels::Backend& backend,
               parallel::Communicator& replica, const kernels::KvPool& cache,
               std::int32_t max_rows);

  /// What an engine is to draft with. Nobody's if nothing is drafted.
  runtime::Drafting engine_drafting();
  /// At most this is drafted for a request in a step.
  const drafter::DraftShape& shape() const { return shape_; }
  /// Who drafts, for people: "ReDrafter", "Medusa", "lookup"; empty: nobody.
  const std::vector<std::string>& kinds() const { return kinds_; }

 private:
  drafter::DraftShape shape_;
  bool automatic_ = false;
  bool shared_noise_ = true;
  std::vector<std::string> kinds_;
  std::optional<runtime::DrafterFiles> files_;
  std::optional<runtime::ModelEmbedding> embedding_;
  std::unique_ptr<drafter::Drafter> head_;
  std::optional<drafter::LookupDrafter> lookup_;
  std::optional<drafter::MergedDrafter> merged_;
  std::optional<runtime::DraftPlanner> planner_;
};

/// What options ask for: of `off` nothing, of `auto` the largest that it chooses within. Throws
/// ConfigError if they name no shape.
drafter::DraftShape draft_shape(const DraftOptions& options);

/// "4x5" to width 4 and depth 5; ConfigError unless both are within bounds.
drafter::DraftShape parse_draft_shape(const std::string& text);

}  // namespace paceline::launcher
