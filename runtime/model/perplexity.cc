#include "runtime/model/perplexity.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace paceline::runtime {
namespace {

// Rows [begin, end) of one window, alone in the batch, pages 0, 1, ... of the cache; all rows but
// the window's last are scored.
void pack_window(std::span<const std::int32_t> window, std::int32_t begin, std::int32_t end,
                 PackedBatch& batch) {
  const auto position_count = static_cast<std::size_t>(end - begin);
  batch.tokens.assign(window.begin() + begin, window.begin() + end);
  batch.positions.resize(position_count);
  std::iota(batch.positions.begin(), batch.positions.end(), begin);
  batch.rows.clear();
  for (const std::int32_t position : batch.positions) {
    batch.rows.push_back({.sequence = 0,
                          .position = position,
                          .slot = position,
                          .base = position + 1,
                          .first_ancestor = 0});
  }
  batch.page_stride = (static_cast<std::int64_t>(window.size()) + kPageSize - 1) / kPageSize;
  batch.page_table.resize(static_cast<std::size_t>(batch.page_stride));
  std::iota(batch.page_table.begin(), batch.page_table.end(), 0);
  const std::size_t scored =
      position_count - (static_cast<std::size_t>(end) == window.size() ? 1 : 0);
  batch.sampled_rows.resize(scored);
  std::iota(batch.sampled_rows.begin(), batch.sampled_rows.end(), 0);
}

}  // namespace

double PerplexityResult::perplexity() const { return std::exp(nll); }

PerplexityResult perplexity(LlamaModel& model, kernels::Backend& backend, const KvCache& cache,
                            std::span<const std::int32_t> ids, std::int64_t context,
                            std::int64_t rows_at_once,
                            const std::function<void(std::int64_t)>& progress) {
  const auto rows = static_cast<std::size_t>(rows_at_once);
  const kernels::Buffer targets = backend.allocate(rows * sizeof(std::int32_t));
  const kernels::Buffer log_probs = backend.allocate(rows * sizeof(double));
  std::vector<double> scores(rows);
  PackedBatch batch;
  PerplexityResult result;
  double sum = 0;
  for (std::size_t start = 0; start < ids.size(); start += static_cast<std::size_t>(context)) {
    const auto window =
        ids.subspan(start, std::min(static_cast<std::size_t>(context), ids.size() - start));
    for (std::size_t begin = 0; begin + 1 < window.size(); begin += rows) {
      const std::size_t end = std::min(begin + rows, window.size());
      pack_window(window, static_cast<std::int32_t>(begin), static_cast<std::int32_t>(end), batch);
      const float* hidden = model.forward(batch, cache.pool());
      const std::size_t scored = batch.sampled_rows.size();
      const float* logits = model.logits(hidden, static_cast<std::int64_t>(scored));
      backend.upload(targets.as<void>(), window.data() + begin + 1, scored * sizeof(std::int32_t));
      backend.token_log_probs({.logits = logits,
                               .targets = targets.as<std::int32_t>(),
                               .log_probs = log_probs.as<double>(),
                               .rows = static_cast<std::int64_t>(scored),
                               .vocab = model.config().vocab_size});
      backend.download(scores.data(), log_probs.as<void>(), scored * sizeof(double));
      for (std::size_t i = 0; i < scored; ++i) sum -= scores[i];
      result.tokens += static_cast<std::int64_t>(scored);
    }
    progress(static_cast<std::int64_t>(start + window.size()));
  }
  result.nll = result.tokens > 0 ? sum / static_cast<double>(result.tokens) : 0;
  return result;
}

}  // namespace paceline::runtime
