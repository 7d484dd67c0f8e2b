#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/core/error.h"
#include "kernels/core/exact_math.h"
#include "kernels/core/lanes.h"
#include "kernels/reference/ops.h"

namespace paceline::kernels::reference {
namespace {

// (logit - max) - log(sum over ids of exp(logit - max)), everything in double, the sum in 16 lanes;
// NaN if a logit is not finite.
double log_prob(const float* logits, std::int64_t vocab, std::int32_t target) {
  float max = -std::numeric_limits<float>::infinity();
  for (std::int64_t id = 0; id < vocab; ++id) {
    if (!std::isfinite(logits[id])) return std::numeric_limits<double>::quiet_NaN();
    max = std::max(max, logits[id]);
  }
  double lanes[kLanes] = {};
  for (std::int64_t id = 0; id < vocab; ++id) {
    lanes[id % kLanes] += exact::exp(static_cast<double>(logits[id]) - static_cast<double>(max));
  }
  return (static_cast<double>(logits[target]) - static_cast<double>(max)) -
         exact::log(sum_lanes(lanes));
}

}  // namespace

void token_log_probs(const TokenLogProbsParams& params) {
  for (std::int64_t row = 0; row < params.rows; ++row) {
    const std::int32_t target = params.targets[row];
    check(target >= 0 && target < params.vocab,
          "token_log_probs: target {} of row {}, vocabulary {}", target, row, params.vocab);
    params.log_probs[row] = log_prob(params.logits + row * params.vocab, params.vocab, target);
  }
}

}  // namespace paceline::kernels::reference
