#include "launcher/drafting.h"

#include <charconv>

#include "drafter/head_drafter.h"
#include "kernels/core/error.h"

namespace paceline::launcher {
namespace {

// What `--draft auto` chooses within. Beyond this a drafter's guesses are worth no row of a model.
constexpr drafter::DraftShape kLargestAutomatic{
    .width = 16, .depth = 8, .max_nodes = 64, .any_candidate = true};
constexpr std::int32_t kLookupPaths = 2;

}  // namespace

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
    throw ConfigError("--draft {}: expected auto, off or WIDTHxDEPTH, at most {}x{}", text,
                      drafter::kMaxDraftWidth, drafter::kMaxDraftDepth);
  }
  return shape;
}

drafter::DraftShape draft_shape(const DraftOptions& options) {
  if (options.shape == "off") return {};
  drafter::DraftShape shape =
      options.shape == "auto" ? kLargestAutomatic : parse_draft_shape(options.shape);
  if (options.max_nodes > 0) shape.max_nodes = options.max_nodes;
  shape.any_candidate = shape.max_nodes > 0;
  return shape;
}

Drafting::Drafting(const DraftOptions& options, const runtime::DraftedModel& model) {
  const bool head = options.drafter != "none";
  const drafter::DraftShape shape = draft_shape(options);
  if (shape.depth == 0 || (!head && !options.lookup)) return;
  automatic_ = options.shape == "auto";
  shape_ = shape;
  shared_noise_ = options.noise == "shared";
  if (head) {
    files_.emplace(runtime::DrafterFiles::open(
        options.drafter, runtime::parse_weight_choice(options.weights), model));
    kinds_.emplace_back(drafter::kind_name(files_->config().kind));
  }
  if (options.lookup) {
    // A text that repeats itself goes on so for long. In a tree of limited size such a path has to
    // earn its rows; in an unlimited one it would always take them.
    const bool may_be_long = shape_.max_nodes > 0 && (head || automatic_);
    lookup_.emplace(drafter::LookupOptions{.paths = automatic_ ? kLookupPaths : 0,
                                           .depth = may_be_long ? drafter::kMaxDraftDepth : 0});
    kinds_.emplace_back("lookup");
  }
}

void Drafting::load(runtime::LlamaModel& model, kernels::Backend& backend) {
  if (files_) {
    embedding_.emplace(model);
    head_ = drafter::make_drafter(files_->config(), *files_, *embedding_, backend);
    files_.reset();
  }
  std::vector<drafter::Drafter*> sources;  // the head first: see DraftPlanner
  if (head_) sources.push_back(head_.get());
  if (lookup_) sources.push_back(&*lookup_);
  if (sources.size() > 1 || (automatic_ && !sources.empty())) merged_.emplace(sources);
}

void Drafting::measure(runtime::LlamaModel& model, kernels::Backend& backend,
                       parallel::Communicator& replica, const kernels::KvPool& cache,
                       std::int32_t max_rows) {
  if (!automatic_ || !merged_) return;
  planner_.emplace(runtime::measure_step_costs({.model = model,
                                                .backend = backend,
                                                .communicator = replica,
                                                .cache = cache,
                                                .head = head_.get(),
                                                .max_rows = max_rows}),
                   shape_);
}

runtime::Drafting Drafting::engine_drafting() {
  drafter::Drafter* drafter = nullptr;
  if (merged_) {
    drafter = &*merged_;
  } else if (head_) {
    drafter = head_.get();
  } else if (lookup_) {
    drafter = &*lookup_;
  }
  return {.drafter = drafter,
          .shape = shape_,
          .shared_noise = shared_noise_,
          .planner = planner_ ? &*planner_ : nullptr};
}

}  // namespace paceline::launcher
