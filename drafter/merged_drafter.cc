#include "drafter/merged_drafter.h"

#include <algorithm>

#include "kernels/core/error.h"

namespace paceline::drafter {

MergedDrafter::MergedDrafter(std::vector<Drafter*> sources) : sources_(std::move(sources)) {
  check(!sources_.empty() && sources_.size() <= 2, "{} drafters to merge", sources_.size());
}

std::int32_t MergedDrafter::most_nodes(const DraftShape& shape) const {
  DraftShape whole = shape;
  if (!shape.any_candidate) whole.max_nodes = 0;
  std::int32_t nodes = 0;
  for (const Drafter* source : sources_) nodes += source->most_nodes(whole);
  return shape.max_nodes == 0 ? nodes : std::min(nodes, shape.max_nodes);
}

void MergedDrafter::draft(const DraftBatch& batch, std::vector<TokenTree>& trees) {
  std::vector<DraftRequest> whole(batch.requests.begin(), batch.requests.end());
  for (DraftRequest& request : whole) {
    // Merged first, cut after; but of candidates there is no end, and more than what the tree holds
    // in the end is never needed.
    if (!request.shape.any_candidate) request.shape.max_nodes = 0;
  }
  // The last source first: what it finds can spare the first one's work.
  std::vector<std::vector<TokenTree>> found(sources_.size());
  for (std::size_t s = sources_.size(); s-- > 0;) {
    const DraftStats before = sources_[s]->stats();
    sources_[s]->draft({batch.hidden, whole}, found[s]);
    stats_.rows += sources_[s]->stats().rows - before.rows;
    stats_.non_finite += sources_[s]->stats().non_finite - before.non_finite;
    for (TokenTree& tree : found[s]) tree.set_source(static_cast<int>(s));
    if (s > 0) spare_searches(found[s], whole);
  }
  trees.assign(batch.requests.size(), {});
  for (const std::vector<TokenTree>& source : found) {
    for (std::size_t i = 0; i < trees.size(); ++i) trees[i].merge(source[i]);
  }
  for (std::size_t i = 0; i < trees.size(); ++i) {
    const DraftShape shape = checked_shape(batch.requests[i]);
    if (shape.depth == 0) continue;
    calibration_.rate(trees[i], batch.requests[i].sampling.temperature > 0);
    if (shape.max_nodes > 0) trees[i].prune(shape.max_nodes);
    stats_.count(trees[i]);
  }
}

// No search for requests whose next token is known as surely as their shapes ask for.
void MergedDrafter::spare_searches(const std::vector<TokenTree>& known,
                                   std::vector<DraftRequest>& requests) const {
  for (std::size_t i = 0; i < requests.size(); ++i) {
    DraftShape& shape = requests[i].shape;
    if (shape.least_chance <= 0) continue;
    double chance = 0;
    for (const TreeNode& node : known[i].nodes()) {
      if (node.parent != TreeNode::kRoot) continue;
      chance = std::max(chance, calibration_.chance(node, requests[i].sampling.temperature > 0));
    }
    if (1 - chance < shape.least_chance) shape.width = 0;
  }
}

void MergedDrafter::learn(const TokenTree& tree, const Accepted& accepted,
                          const kernels::SamplingRow& sampling) {
  calibration_.learn(tree, accepted, sampling.temperature > 0);
}

}  // namespace paceline::drafter
