#include "drafter/medusa_drafter.h"

#include <algorithm>

#include "kernels/core/device_memory.h"

namespace paceline::drafter {

MedusaDrafter::MedusaDrafter(const DrafterConfig& config, const WeightSource& weights,
                             kernels::Backend& backend)
    : backend_(backend), head_(config, weights, backend), candidates_(config, backend) {}

std::int32_t MedusaDrafter::most_nodes(const DraftShape& shape) const {
  const auto& choices = head_.config().choices;
  if (shape.width == 0 || shape.depth == 0) return 0;
  if (choices.empty()) return limited_nodes(shape, shape.width, shape.depth);
  const auto within = std::count_if(choices.begin(), choices.end(), [&](const auto& path) {
    return std::ssize(path) <= shape.depth;
  });
  const auto nodes = static_cast<std::int32_t>(within);
  return shape.max_nodes > 0 ? std::min(nodes, shape.max_nodes) : nodes;
}

std::vector<MedusaDrafter::Asked> MedusaDrafter::asked(const DraftBatch& batch) const {
  std::vector<Asked> asked;
  for (std::size_t i = 0; i < batch.requests.size(); ++i) {
    const DraftShape shape = checked_shape(batch.requests[i]);
    if (shape.width == 0 || shape.depth == 0) continue;
    asked.push_back({i, std::min<std::int64_t>(shape.depth, head_.config().num_heads)});
  }
  std::stable_sort(asked.begin(), asked.end(),
                   [](const Asked& a, const Asked& b) { return a.heads > b.heads; });
  return asked;
}

void MedusaDrafter::find_candidates(const DraftBatch& batch, const std::vector<Asked>& asked) {
  std::vector<std::int32_t> hidden_rows;
  for (const Asked& one : asked) hidden_rows.push_back(batch.requests[one.index].hidden_row);
  const std::int32_t* rows = kernels::upload<std::int32_t>(backend_, hidden_rows_, hidden_rows);

  first_row_.assign(1, 0);
  for (std::int64_t head = 0; head < asked.front().heads; ++head) {
    const auto count = std::count_if(asked.begin(), asked.end(),
                                     [&](const Asked& one) { return one.heads > head; });
    first_row_.push_back(first_row_.back() + count);
  }
  candidates_.resize(first_row_.back());
  for (std::int64_t head = 0; head < asked.front().heads; ++head) {
    candidates_.find(first_row_[head], first_row_[head + 1] - first_row_[head],
                     [&](std::int64_t begin, std::int64_t count) {
                       return head_.logits(head, batch.hidden, rows + begin, count);
                     });
  }
  candidates_.fetch();
  stats_.rows += first_row_.back();
}

std::vector<std::vector<RankedToken>> MedusaDrafter::ranked_depths(const DraftRequest& request,
                                                                   std::int64_t heads,
                                                                   std::int64_t row) const {
  std::vector<std::vector<RankedToken>> depths;
  kernels::SamplingRow sampling = request.sampling;
  for (std::int64_t head = 0; head < heads; ++head, ++sampling.index) {
    const CandidateRows candidates = candidates_.rows(first_row_[head] + row);
    if (candidates.counts[0] == 0) return {};
    depths.push_back(ranked_tokens(sampling, candidates.tokens_of(0), candidates.log_probs_of(0)));
  }
  return depths;
}

TokenTree MedusaDrafter::tree(const DraftShape& shape,
                              const std::vector<std::vector<RankedToken>>& depths) const {
  const auto& choices = head_.config().choices;
  if (choices.empty()) {
    return most_probable_tree(depths, limited_nodes(shape, shape.width, shape.depth));
  }
  TokenTree tree = chosen_tree(depths, choices);
  if (shape.max_nodes > 0) tree.prune(shape.max_nodes);
  return tree;
}

void MedusaDrafter::draft(const DraftBatch& batch, std::vector<TokenTree>& trees) {
  trees.resize(batch.requests.size());
  for (TokenTree& tree : trees) tree.clear();
  const std::vector<Asked> asked = this->asked(batch);
  if (asked.empty()) return;
  find_candidates(batch, asked);
  for (std::size_t row = 0; row < asked.size(); ++row) {
    const DraftRequest& request = batch.requests[asked[row].index];
    TokenTree& drafted = trees[asked[row].index];
    const auto depths = ranked_depths(request, asked[row].heads, static_cast<std::int64_t>(row));
    if (depths.empty()) {
      ++stats_.non_finite;
    } else {
      drafted = tree(checked_shape(request), depths);
    }
    stats_.count(drafted);
  }
}

}  // namespace paceline::drafter
