#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/core/sampling.h"
#include "kernels/reference/ops.h"

namespace paceline::kernels::reference {
namespace {

std::int32_t largest(const float* logits, std::int64_t vocab) {
  return static_cast<std::int32_t>(std::max_element(logits, logits + vocab) - logits);
}

// Steps 4 and 5 of kernels/core/sampling.h: the kept ids, best first.
std::vector<std::int32_t> keep(const std::vector<float>& t, const SamplingRow& sampling) {
  std::vector<std::int32_t> ids(t.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(),
                   [&](std::int32_t a, std::int32_t b) { return t[a] > t[b]; });
  if (sampling.top_k > 0 && static_cast<std::size_t>(sampling.top_k) < ids.size()) {
    ids.resize(sampling.top_k);
  }
  if (sampling.top_p < 1) {
    std::uint64_t total = 0;
    for (const std::int32_t id : ids) total += nucleus_weight(t[id]);
    std::uint64_t prefix = 0;
    std::size_t count = 0;
    do {
      prefix += nucleus_weight(t[ids[count++]]);
    } while (!reaches_nucleus(prefix, total, sampling.top_p));
    ids.resize(count);
  }
  return ids;
}

std::int32_t select(const float* logits, std::int64_t vocab, const SamplingRow& sampling) {
  for (std::int64_t id = 0; id < vocab; ++id) {
    if (!std::isfinite(logits[id])) return -1;
  }
  const std::int32_t top = largest(logits, vocab);
  if (!(sampling.temperature > 0)) return top;

  std::vector<float> t(vocab);
  for (std::int64_t id = 0; id < vocab; ++id) {
    t[id] = scaled_logit(logits[id], logits[top], sampling.temperature);
  }
  std::int32_t best = -1;
  double best_score = -std::numeric_limits<double>::infinity();
  for (const std::int32_t id : keep(t, sampling)) {
    const double score = static_cast<double>(t[id]) + sampling_noise(sampling, id);
    if (score > best_score || (score == best_score && id < best)) {
      best = id;
      best_score = score;
    }
  }
  return best;
}

}  // namespace

void select_tokens(const SelectTokensParams& params) {
  for (std::int64_t row = 0; row < params.rows; ++row) {
    params.tokens[row] = params.vocab == 0 ? -1
                                           : select(params.logits + row * params.vocab,
                                                    params.vocab, params.sampling[row]);
  }
}

void largest_logits(const LargestLogitsParams& params) {
  for (std::int64_t row = 0; row < params.rows; ++row) {
    const float* logits = params.logits + row * params.vocab;
    LargestLogit& found = params.largest[row];
    found = {};
    if (params.vocab == 0) continue;
    found.all_finite =
        std::all_of(logits, logits + params.vocab, [](float x) { return std::isfinite(x); }) ? 1
                                                                                             : 0;
    if (found.all_finite == 0) continue;
    found.id = largest(logits, params.vocab);
    found.logit = logits[found.id];
  }
}

void merge_largest(const MergeLargestParams& params) {
  for (std::int64_t row = 0; row < params.rows; ++row) {
    params.tokens[row] = largest_of_parts(params, row);
  }
}

}  // namespace paceline::kernels::reference
