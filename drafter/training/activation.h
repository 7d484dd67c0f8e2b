#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "drafter/training/gemm.h"

namespace paceline::drafter {

/// A matrix between two layers. It keeps its memory from one minibatch to the next.
class Activation {
 public:
  /// Gives it a shape; what it holds is then undefined.
  Matrix resize(std::int64_t rows, std::int64_t cols) {
    if (std::ssize(values_) < rows * cols) values_.resize(rows * cols);
    matrix_ = {values_.data(), rows, cols, cols};
    return matrix_;
  }
  Matrix resize_to_zero(std::int64_t rows, std::int64_t cols) {
    resize(rows, cols);
    std::fill_n(values_.begin(), rows * cols, 0.0f);
    return matrix_;
  }
  Matrix matrix() const { return matrix_; }

 private:
  std::vector<float> values_;
  Matrix matrix_;
};

}  // namespace paceline::drafter
