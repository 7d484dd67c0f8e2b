#include "drafter/recurrent_drafter.h"

#include "kernels/core/device_memory.h"

namespace paceline::drafter {

RecurrentDrafter::RecurrentDrafter(const DrafterConfig& config, const WeightSource& weights,
                                   TokenEmbedding& embedding, kernels::Backend& backend)
    : embedding_(embedding),
      backend_(backend),
      head_(config, weights, backend),
      candidates_(head_.config(), backend) {}

void RecurrentDrafter::draft(const DraftBatch& batch, std::vector<TokenTree>& trees) {
  searches_.clear();
  for (const DraftRequest& request : batch.requests) {
    searches_.push_back(
        {BeamSearch(checked_shape(request), request.sampling, request.tokens.back()),
         request.hidden_row, 0});
  }
  lay_out_rows();
  for (bool first = true; rows_.size() > 0; first = false) {
    advance_states(first);
    find_candidates(batch.hidden);
    extend_searches();
    lay_out_rows();
  }
  trees.resize(batch.requests.size());
  for (std::size_t i = 0; i < searches_.size(); ++i) {
    const BeamSearch& beams = searches_[i].beams;
    trees[i] = beams.tree();
    if (beams.depth() == 0 && !beams.failed()) continue;  // no draft was asked for
    if (beams.failed()) ++stats_.non_finite;
    stats_.count(trees[i]);
  }
}

void RecurrentDrafter::lay_out_rows() {
  rows_.tokens.clear();
  rows_.parents.clear();
  rows_.hidden_rows.clear();
  for (Search& search : searches_) {
    if (search.beams.done()) continue;
    const std::int32_t before = search.first_row;
    search.first_row = static_cast<std::int32_t>(rows_.size());
    for (const BeamSearch::Beam& beam : search.beams.beams()) {
      rows_.tokens.push_back(beam.token);
      rows_.parents.push_back(before + beam.parent);  // not read at the first depth
      rows_.hidden_rows.push_back(search.hidden_row);
    }
  }
}

void RecurrentDrafter::advance_states(bool first) {
  const std::int64_t rows = rows_.size();
  const std::int64_t width = head_.config().hidden_size;
  const std::int32_t* tokens = kernels::upload<std::int32_t>(backend_, tokens_, rows_.tokens);
  float* embedded = kernels::reserve<float>(backend_, embedded_, rows * width);
  embedding_.forward(tokens, embedded, rows);

  float* previous = nullptr;
  if (!first) {
    previous = kernels::reserve<float>(backend_, parent_states_, rows * width);
    backend_.gather_rows({.in = states_.as<float>(),
                          .index = kernels::upload<std::int32_t>(backend_, parents_, rows_.parents),
                          .out = previous,
                          .rows = rows,
                          .width = width});
  }
  head_.advance(embedded, previous, kernels::reserve<float>(backend_, states_, rows * width), rows);
  stats_.rows += rows;
}

void RecurrentDrafter::find_candidates(const float* hidden) {
  const std::int64_t width = head_.config().hidden_size;
  const std::int32_t* hidden_rows =
      kernels::upload<std::int32_t>(backend_, hidden_rows_, rows_.hidden_rows);
  candidates_.resize(rows_.size());
  candidates_.find(0, rows_.size(), [&](std::int64_t begin, std::int64_t count) {
    return head_.logits(hidden, hidden_rows + begin, states_.as<float>() + begin * width, count);
  });
  candidates_.fetch();
}

void RecurrentDrafter::extend_searches() {
  for (Search& search : searches_) {
    if (search.beams.done()) continue;
    search.beams.extend(candidates_.rows(search.first_row));
  }
}

}  // namespace paceline::drafter
