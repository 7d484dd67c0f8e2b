#include "drafter/recurrent_drafter.h"

#include "kernels/core/device_memory.h"

namespace paceline::drafter {

RecurrentDrafter::RecurrentDrafter(const DrafterConfig& config, const WeightSource& weights,
                                   TokenEmbedding& embedding, kernels::Backend& backend)
    : embedding_(embedding),
      backend_(backend),
      head_(config, weights, backend),
      searches_(config, backend),
      trees_(backend.make_readback()),
      candidates_(config, backend) {}

// On a device the host waits once, for the trees.
void RecurrentDrafter::draft(const DraftBatch& batch, std::vector<TokenTree>& trees) {
  const DraftLayout layout = plan(batch);
  if (!searches_.empty()) {
    const auto search = [&] { this->search(); };
    if (embedding_.stays_on_device()) {
      backend_.repeat(key(), search);
    } else {
      search();
    }
  }
  const kernels::Readback::Part part = found();
  trees_->start({&part, 1});
  read(layout, trees_->wait(), trees);
}

DraftLayout RecurrentDrafter::plan(const DraftBatch& batch) {
  DraftLayout layout = searches_.plan(batch.requests);
  hidden_ = batch.hidden;
  key_ = {reinterpret_cast<std::intptr_t>(this), reinterpret_cast<std::intptr_t>(hidden_)};
  key_.insert(key_.end(), searches_.key().begin(), searches_.key().end());
  return layout;
}

DeviceTrees RecurrentDrafter::search() {
  searches_.start();
  for (;;) {
    const BeamSearches::Rows rows = searches_.rows();
    if (rows.count == 0) break;
    advance_states(rows);
    find_candidates(rows);
    searches_.extend(candidates_.device_rows());
  }
  return searches_.merge();
}

void RecurrentDrafter::read(const DraftLayout& layout, const std::byte* found,
                            std::vector<TokenTree>& trees) {
  const BeamSearches::Found all = BeamSearches::read(layout, found, trees);
  stats_.rows += all.rows;
  stats_.non_finite += all.non_finite;
  for (const std::size_t request : layout.index) stats_.count(trees[request]);
}

void RecurrentDrafter::advance_states(const BeamSearches::Rows& rows) {
  const std::int64_t width = head_.config().hidden_size;
  float* embedded = kernels::reserve<float>(backend_, embedded_, rows.count * width);
  embedding_.forward(rows.tokens, embedded, rows.count);

  float* previous = nullptr;
  if (!rows.first) {
    previous = kernels::reserve<float>(backend_, parent_states_, rows.count * width);
    backend_.gather_rows({.in = states_.as<float>(),
                          .index = rows.parents,
                          .out = previous,
                          .rows = rows.count,
                          .width = width});
  }
  head_.advance(embedded, previous, kernels::reserve<float>(backend_, states_, rows.count * width),
                rows.count);
}

void RecurrentDrafter::find_candidates(const BeamSearches::Rows& rows) {
  const std::int64_t width = head_.config().hidden_size;
  candidates_.resize(rows.count);
  candidates_.find(0, rows.count, [&](std::int64_t begin, std::int64_t count) {
    return head_.logits(hidden_, rows.hidden_rows + begin, states_.as<float>() + begin * width,
                        count);
  });
}

}  // namespace paceline::drafter
