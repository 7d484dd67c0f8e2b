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
  trees.assign(batch.requests.size(), {});
  std::vector<TokenTree> found;
  for (std::size_t s = 0; s < sources_.size(); ++s) {
    const DraftStats before = sources_[s]->stats();
    sources_[s]->draft({batch.hidden, whole}, found);
    stats_.rows += sources_[s]->stats().rows - before.rows;
    stats_.non_finite += sources_[s]->stats().non_finite - before.non_finite;
    for (std::size_t i = 0; i < trees.size(); ++i) {
      found[i].set_source(static_cast<int>(s));
      trees[i].merge(found[i]);
    }
  }
  for (std::size_t i = 0; i < trees.size(); ++i) {
    const DraftShape shape = checked_shape(batch.requests[i]);
    if (shape.depth == 0) continue;
    calibration_.rate(trees[i], batch.requests[i].sampling.temperature > 0);
    if (shape.max_nodes > 0) trees[i].prune(shape.max_nodes);
    stats_.count(trees[i]);
  }
}

void MergedDrafter::learn(const TokenTree& tree, const Accepted& accepted,
                          const kernels::SamplingRow& sampling) {
  calibration_.learn(tree, accepted, sampling.temperature > 0);
}

}  // namespace paceline::drafter
