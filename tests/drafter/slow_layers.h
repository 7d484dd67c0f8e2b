#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "drafter/candidates.h"
#include "tests/drafter/random_head.h"

namespace paceline::drafter {

/// A head's layers in double, row by row: slow and obvious.
class SlowLayers {
 public:
  using Row = std::vector<double>;

  /// The weights must outlive it.
  explicit SlowLayers(const RandomWeights& weights) : weights_(weights) {}

  static double silu(double x) { return x / (1 + std::exp(-x)); }

  /// W x, W [n, size of x]
  Row times(const std::string& name, std::int64_t n, const Row& x) const {
    const auto k = static_cast<std::int64_t>(x.size());
    const std::vector<float> matrix = weights_.values(name, n * k, 0.5f);
    Row y(n, 0.0);
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < k; ++j) y[i] += double{matrix[i * k + j]} * x[j];
    }
    return y;
  }
  /// W x + b
  Row with_bias(const std::string& name, std::int64_t n, const Row& x) const {
    Row y = times(name, n, x);
    const std::vector<float> bias = weights_.vector(name + ".bias", n);
    for (std::int64_t i = 0; i < n; ++i) y[i] += bias[i];
    return y;
  }
  /// x + silu(W x + b)
  Row block(const std::string& name, Row x) const {
    const Row y = with_bias(name, static_cast<std::int64_t>(x.size()), x);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += silu(y[i]);
    return x;
  }

 private:
  const RandomWeights& weights_;
};

/// Of element `row` under a softmax over the kCandidates largest logits.
inline double slow_log_prob(std::vector<float> logits, std::size_t row) {
  const double logit = logits[row];
  std::sort(logits.rbegin(), logits.rend());
  double sum = 0;
  for (std::size_t i = 0; i < logits.size() && i < kCandidates; ++i) {
    sum += std::exp(double{logits[i]} - logits[0]);
  }
  return logit - logits[0] - std::log(sum);
}

}  // namespace paceline::drafter
