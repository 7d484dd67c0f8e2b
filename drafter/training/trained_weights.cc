#include "drafter/training/trained_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

#include "kernels/core/error.h"

namespace paceline::drafter {
namespace {

void check_tensor(const std::string& name, std::span<const float> values, std::int64_t elements) {
  if (std::ssize(values) != elements) {
    throw ConfigError("the drafter in training: {} has {} numbers, expected {}", name,
                      values.size(), elements);
  }
  if (!std::all_of(values.begin(), values.end(),
                   [](float value) { return std::isfinite(value); })) {
    throw ConfigError("the drafter in training: {} has a number that is not finite", name);
  }
}

kernels::HostMatrix host_matrix(ConstMatrix matrix) {
  kernels::HostMatrix host;
  host.rows = matrix.rows;
  host.cols = matrix.cols;
  host.values.resize(matrix.rows * matrix.cols * sizeof(float));
  for (std::int64_t r = 0; r < matrix.rows; ++r) {
    std::memcpy(host.values.data() + r * matrix.cols * sizeof(float), matrix.row(r).data(),
                matrix.cols * sizeof(float));
  }
  return host;
}

}  // namespace

kernels::MatrixSource TrainedWeights::matrix(const std::string& name, std::int64_t n,
                                             std::int64_t k) const {
  const DrafterConfig& config = parameters_.config();
  if (config.tied_head && is_output(config, name)) {
    check(base_output_.rows == n && base_output_.cols == k, "the base's output rows are [{}, {}]",
          base_output_.rows, base_output_.cols);
    return kernels::convert(host_matrix(base_output_), format_);
  }
  const std::span<const float> values = parameters_.tensor(name + ".weight");
  check_tensor(name, values, n * k);
  return kernels::convert(host_matrix({values.data(), n, k, k}), format_);
}

std::vector<float> TrainedWeights::vector(const std::string& name, std::int64_t n) const {
  const std::span<const float> values = parameters_.tensor(name);
  check_tensor(name, values, n);
  return {values.begin(), values.end()};
}

}  // namespace paceline::drafter
