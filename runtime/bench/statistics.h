#pragma once

#include <cstddef>
#include <span>

namespace paceline::runtime {

/// What repeated measurements of one thing come to. All 0 without any.
struct Summary {
  std::size_t count = 0;
  double mean = 0;
  double median = 0;
  double stddev = 0;  ///< of the sample (divided by count - 1); 0 for fewer than two values
  double min = 0;
  double max = 0;
};
Summary summarize(std::span<const double> values);

/// The value below which that share (0 to 1) of the values lies, interpolated between the two
/// nearest as numpy does. 0 without values. Example: 0.5 of 1, 2, 4, 9 is 3.
double percentile(std::span<const double> values, double share);

/// 0 without values.
double mean(std::span<const double> values);

/// numerator / denominator; 0 unless the denominator is positive.
double ratio(double numerator, double denominator);

}  // namespace paceline::runtime
