#include "launcher/drafting.h"

#include <charconv>

#include "drafter/recurrent_drafter.h"
#include "kernels/core/error.h"

namespace paceline::launcher {

drafter::DraftShape parse_draft_shape(const std::string& text) {
  drafter::DraftShape shape;
  const char* end = text.data() + text.size();
  const auto width = std::from_chars(text.data(), end, shape.width);
  bool good = width.ec == std::errc() && width.ptr != end && *width.ptr == 'x';
  if (good) {
    const auto depth = std::from_chars(width.ptr + 1, end, shape.depth);
    good = depth.ec == std::errc() && depth.ptr == end && shape.width >= 1 &&
           shape.width <= drafter::kMaxDraftWidth && shape.depth >= 1 &&
           shape.depth <= drafter::kMaxDraftDepth;
  }
  if (!good) {
    throw ConfigError("--draft {}: expected WIDTHxDEPTH, at most {}x{}", text,
                      drafter::kMaxDraftWidth, drafter::kMaxDraftDepth);
  }
  return shape;
}

Drafting::Drafting(const DraftOptions& options, const runtime::DraftedModel& model) {
  const drafter::DraftShape shape = parse_draft_shape(options.shape);
  const bool recurrent = options.drafter != "none";
  if (!recurrent && !options.lookup) return;
  shape_ = shape;
  shape_.max_nodes = options.max_nodes;
  shared_noise_ = options.noise == "shared";
  shape_.any_candidate = options.max_nodes > 0;
  if (recurrent) {
    files_.emplace(runtime::DrafterFiles::open(
        options.drafter, runtime::parse_weight_choice(options.weights), model));
  }
  if (!options.lookup) return;
  // A text that repeats itself goes on so for long. In a tree of limited size such a path has to
  // earn its rows; in an unlimited one it would always take them.
  const bool may_be_long = recurrent && options.max_nodes > 0;
  lookup_.emplace(drafter::LookupOptions{.depth = may_be_long ? drafter::kMaxDraftDepth : 0});
}

void Drafting::load(runtime::LlamaModel& model, kernels::Backend& backend) {
  if (!files_) return;
  embedding_.emplace(model);
  recurrent_ =
      std::make_unique<drafter::RecurrentDrafter>(files_->config(), *files_, *embedding_, backend);
  files_.reset();
  if (lookup_) merged_.emplace(std::vector<drafter::Drafter*>{recurrent_.get(), &*lookup_});
}

drafter::Drafter* Drafting::drafter() {
  if (merged_) return &*merged_;
  if (recurrent_) return recurrent_.get();
  return lookup_ ? &*lookup_ : nullptr;
}

}  // namespace paceline::launcher
