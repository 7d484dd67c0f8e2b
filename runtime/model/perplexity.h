#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "kernels/api.h"
#include "runtime/engine/kv_cache.h"
#include "runtime/model/llama.h"

namespace paceline::runtime {

struct PerplexityResult {
  std::int64_t tokens = 0;    // tokens scored
  double nll = 0;             // mean negative log-likelihood per scored token, in nats
  double perplexity() const;  // exp(nll)
};

/// Cuts the ids into windows of `context` tokens that do not overlap; in each, every token but the
/// first is scored given those before it in the window. A last window of one token scores nothing.
/// The cache must hold one window, the model's limits rows_at_once rows with logits.
/// `progress` is told the number of ids done after each window.
PerplexityResult perplexity(LlamaModel& model, kernels::Backend& backend, const KvCache& cache,
                            std::span<const std::int32_t> ids, std::int64_t context,
                            std::int64_t rows_at_once,
                            const std::function<void(std::int64_t)>& progress);

}  // namespace paceline::runtime
