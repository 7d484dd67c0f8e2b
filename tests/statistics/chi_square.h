#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>

namespace paceline::statistics {

/// P(X > x) for X of the chi-square distribution, degrees > 0: the upper incomplete gamma function
/// Q(degrees / 2, x / 2), by its series or its continued fraction (Press et al., Numerical Recipes,
/// chapter 6.2).
inline double chi_square_tail(double x, double degrees) {
  const double a = degrees / 2, y = x / 2;
  if (!(y > 0)) return 1;
  constexpr double kPrecision = 1e-15;
  const double scale = std::exp(a * std::log(y) - y - std::lgamma(a));
  if (y < a + 1) {
    double term = 1 / a, sum = term;
    for (double n = a + 1; term > kPrecision * sum; ++n) sum += term *= y / n;
    return 1 - scale * sum;
  }
  constexpr double kTiny = 1e-300;  // stands for 0 in Lentz's method
  double b = y + 1 - a, c = 1 / kTiny, d = 1 / b, fraction = d, factor = 0;
  for (double n = 1; std::fabs(factor - 1) > kPrecision; ++n) {
    const double numerator = -n * (n - a);
    b += 2;
    d = numerator * d + b;
    d = 1 / (std::fabs(d) < kTiny ? kTiny : d);
    c = b + numerator / c;
    if (std::fabs(c) < kTiny) c = kTiny;
    factor = d * c;
    fraction *= factor;
  }
  return scale * fraction;
}

struct ChiSquare {
  double statistic = 0;
  std::int64_t degrees = 0;
  double p_value = 1;
};

/// Pearson's test: how badly counts fit probabilities, which sum to 1. Cells of which fewer than 5
/// are expected are taken together as one. A count where the probability is 0 fits nothing.
inline ChiSquare chi_square(std::span<const std::int64_t> counts,
                            std::span<const double> probabilities) {
  const auto draws =
      static_cast<double>(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}));
  ChiSquare result;
  std::int64_t cells = 0;
  const auto add = [&](double count, double expected) {
    if (expected > 0) {
      result.statistic += (count - expected) * (count - expected) / expected;
      ++cells;
    } else if (count > 0) {
      result.statistic = std::numeric_limits<double>::infinity();
    }
  };
  double rare = 0, expected_rare = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const auto count = static_cast<double>(counts[i]);
    const double expected = probabilities[i] * draws;
    if (expected >= 5) {
      add(count, expected);
    } else if (expected > 0) {
      rare += count;
      expected_rare += expected;
    } else {
      add(count, 0);
    }
  }
  add(rare, expected_rare);
  result.degrees = cells - 1;
  if (std::isinf(result.statistic)) {
    result.p_value = 0;
  } else if (result.degrees > 0) {
    result.p_value = chi_square_tail(result.statistic, static_cast<double>(result.degrees));
  }
  return result;
}

}  // namespace paceline::statistics
