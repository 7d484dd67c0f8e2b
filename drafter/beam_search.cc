#include "drafter/beam_search.h"

#include <algorithm>

#include "drafter/candidates.h"
#include "kernels/core/device_memory.h"

namespace paceline::drafter {

using kernels::BeamPlan;
using kernels::kMaxPathLength;
using kernels::PathNode;
using kernels::PathTree;

BeamSearches::BeamSearches(const DrafterConfig& config, kernels::Backend& backend)
    : backend_(backend), outputs_(config.num_outputs()) {
  if (!config.draft_vocab.empty()) {
    kernels::upload<std::int32_t>(backend_, token_of_, config.draft_vocab);
  }
}

namespace {

/// What the host reads: trees [searches], rows of each level [kMaxPathLength], nodes [searches,
/// most_nodes].
std::size_t found_bytes(std::size_t searches, std::int64_t most_nodes) {
  static_assert((kMaxPathLength * sizeof(std::int32_t)) % alignof(PathNode) == 0);
  return searches * (sizeof(PathTree) + static_cast<std::size_t>(most_nodes) * sizeof(PathNode)) +
         kMaxPathLength * sizeof(std::int32_t);
}

}  // namespace

DraftLayout BeamSearches::plan(std::span<const DraftRequest> requests) {
  DraftLayout layout{.requests = requests.size()};
  plans_.clear();
  most_rows_.clear();
  stride_ = most_nodes_ = 0;
  const std::int64_t choices = std::min<std::int64_t>(kCandidates, outputs_);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const DraftShape shape = checked_shape(requests[i]);
    if (shape.width == 0 || shape.depth == 0) continue;
    const bool any_candidate = shape.any_candidate && shape.max_nodes > 0;
    BeamPlan plan{.sampling = requests[i].sampling,
                  .least_chance = shape.least_chance,
                  .root = requests[i].tokens.back(),
                  .hidden_row = requests[i].hidden_row,
                  .width = shape.width,
                  .depth = shape.depth,
                  .room = shape.width,
                  .first = static_cast<std::int32_t>(stride_),
                  .most_nodes = shape.max_nodes,
                  .any_candidate = any_candidate ? 1 : 0};
    if (any_candidate)
      plan.room = std::clamp(shape.max_nodes, shape.width, shape.width * kCandidates);
    layout.index.push_back(i);
    plans_.push_back(plan);
    stride_ += plan.room;
    most_nodes_ =
        std::max<std::int64_t>(most_nodes_, limited_nodes(shape, shape.width, shape.depth));
    most_rows_.resize(std::max(most_rows_.size(), static_cast<std::size_t>(shape.depth)));
    std::int64_t beams = 1;
    for (std::int32_t level = 0; level < shape.depth; ++level) {
      most_rows_[level] += beams;
      beams = std::min<std::int64_t>(shape.width, beams * choices);
    }
  }
  key_ = {std::ssize(plans_), stride_, most_nodes_};
  key_.insert(key_.end(), most_rows_.begin(), most_rows_.end());
  kernels::upload<BeamPlan>(backend_, device_plans_, plans_);
  layout.most_nodes = most_nodes_;
  layout.levels = std::ssize(most_rows_);
  layout.bytes = found().bytes;
  return layout;
}

std::int32_t* BeamSearches::device_row_counts() const {
  return reinterpret_cast<std::int32_t*>(device_trees() + plans_.size());
}

kernels::PathNode* BeamSearches::device_nodes() const {
  return reinterpret_cast<PathNode*>(device_row_counts() + kMaxPathLength);
}

void BeamSearches::start() {
  const std::int64_t searches = std::ssize(plans_);
  const std::int64_t most_rows = *std::ranges::max_element(most_rows_);
  const auto levels = std::ssize(most_rows_);
  kernels::reserve<kernels::BeamState>(backend_, states_, searches);
  kernels::reserve<kernels::Beam>(backend_, levels_, levels * stride_);
  for (kernels::Buffer* rows : {&tokens_, &parents_, &hidden_rows_}) {
    kernels::reserve<std::int32_t>(backend_, *rows, most_rows);
  }
  kernels::reserve<std::byte>(backend_, found_,
                              static_cast<std::int64_t>(found_bytes(plans_.size(), most_nodes_)));
  level_ = 0;
  place(true);
}

void BeamSearches::place(bool start) {
  backend_.place_beams({.plans = device_plans_.as<BeamPlan>(),
                        .states = states_.as<kernels::BeamState>(),
                        .levels = levels_.as<kernels::Beam>(),
                        .stride = stride_,
                        .start = start,
                        .tokens = tokens_.as<std::int32_t>(),
                        .parent_rows = parents_.as<std::int32_t>(),
                        .hidden_rows = hidden_rows_.as<std::int32_t>(),
                        .num_rows = device_row_counts() + level_,
                        .searches = std::ssize(plans_),
                        .most_rows = most_rows_[level_]});
}

BeamSearches::Rows BeamSearches::rows() const {
  Rows rows{tokens_.as<std::int32_t>(), parents_.as<std::int32_t>(),
            hidden_rows_.as<std::int32_t>(), 0, level_ == 0};
  if (level_ == std::ssize(most_rows_)) return rows;
  rows.count = most_rows_[level_];
  if (backend_.shares_host_memory()) {
    backend_.synchronize();
    rows.count = device_row_counts()[level_];
  }
  return rows;
}

void BeamSearches::extend(const DeviceCandidates& candidates) {
  backend_.extend_beams({.plans = device_plans_.as<BeamPlan>(),
                         .states = states_.as<kernels::BeamState>(),
                         .levels = levels_.as<kernels::Beam>(),
                         .stride = stride_,
                         .ids = candidates.ids,
                         .log_probs = candidates.log_probs,
                         .counts = candidates.counts,
                         .token_of = token_of_.as<std::int32_t>(),
                         .k = candidates.k,
                         .searches = std::ssize(plans_)});
  if (++level_ < std::ssize(most_rows_)) place(false);
}

DeviceTrees BeamSearches::merge() {
  backend_.merge_beams({.plans = device_plans_.as<BeamPlan>(),
                        .states = states_.as<kernels::BeamState>(),
                        .levels = levels_.as<kernels::Beam>(),
                        .stride = stride_,
                        .trees = device_trees(),
                        .nodes = device_nodes(),
                        .searches = std::ssize(plans_),
                        .most_nodes = most_nodes_});
  return {device_trees(), device_nodes(), most_nodes_};
}

kernels::Readback::Part BeamSearches::found() const {
  return {found_.as<void>(), empty() ? 0 : found_bytes(plans_.size(), most_nodes_)};
}

BeamSearches::Found BeamSearches::read(const DraftLayout& layout, const std::byte* bytes,
                                       std::vector<TokenTree>& trees) {
  trees.resize(layout.requests);
  for (TokenTree& tree : trees) tree.clear();
  const std::size_t searches = layout.index.size();
  if (searches == 0) return {};
  const auto* found_trees = reinterpret_cast<const PathTree*>(bytes);
  const auto* row_counts = reinterpret_cast<const std::int32_t*>(found_trees + searches);
  const auto* nodes = reinterpret_cast<const PathNode*>(row_counts + kMaxPathLength);

  Found found;
  // Levels after one without rows were not laid out.
  for (std::int64_t d = 0; d < layout.levels && row_counts[d] > 0; ++d) {
    found.rows += row_counts[d];
  }
  for (std::size_t s = 0; s < searches; ++s) {
    const PathTree& merged = found_trees[s];
    if (merged.end == kernels::BeamEnd::kNotFinite) ++found.non_finite;
    TokenTree& tree = trees[layout.index[s]];
    for (const PathNode& node : std::span(nodes, static_cast<std::size_t>(merged.nodes))) {
      tree.add(node.parent, node.token, node.log_prob, node.score);
    }
    tree.unmerged_rows = merged.unmerged_rows;
    tree.saved_rows = merged.saved_rows;
    nodes += layout.most_nodes;
  }
  return found;
}

}  // namespace paceline::drafter
