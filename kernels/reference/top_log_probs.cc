#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/core/exact_math.h"
#include "kernels/reference/ops.h"

namespace paceline::kernels::reference {
namespace {

// Returns the number of tokens kept.
std::int32_t top(const float* logits, std::int64_t vocab, std::int32_t k, std::int32_t* kept,
                 float* log_probs) {
  if (!std::all_of(logits, logits + vocab, [](float logit) { return std::isfinite(logit); })) {
    return 0;
  }
  const float max = *std::max_element(logits, logits + vocab);
  std::vector<float> z(vocab);
  for (std::int64_t id = 0; id < vocab; ++id) z[id] = (logits[id] - max) + 0.0f;
  std::vector<std::int32_t> ids(vocab);
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(),
                   [&](std::int32_t a, std::int32_t b) { return z[a] > z[b]; });
  const auto count = static_cast<std::int32_t>(std::min<std::int64_t>(k, vocab));
  double sum = 0;
  for (std::int32_t i = 0; i < count; ++i) sum += exact::exp(static_cast<double>(z[ids[i]]));
  const double log_sum = exact::log(sum);
  for (std::int32_t i = 0; i < count; ++i) {
    kept[i] = ids[i];
    log_probs[i] = static_cast<float>(static_cast<double>(z[ids[i]]) - log_sum);
  }
  return count;
}

}  // namespace

void top_log_probs(const TopLogProbsParams& params) {
  check(params.k > 0 && params.k <= kMaxTopLogProbs, "top_log_probs: k is {}, expected 1 to {}",
        params.k, kMaxTopLogProbs);
  for (std::int64_t row = 0; row < params.rows; ++row) {
    params.counts[row] = params.vocab == 0
                             ? 0
                             : top(params.logits + row * params.vocab, params.vocab, params.k,
                                   params.ids + row * params.k, params.log_probs + row * params.k);
  }
}

}  // namespace paceline::kernels::reference
