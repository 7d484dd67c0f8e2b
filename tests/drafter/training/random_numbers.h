#pragma once

#include <cstdint>
#include <vector>

#include "drafter/training/gemm.h"
#include "kernels/core/philox.h"

namespace paceline::drafter {

/// Uniform in (-1, 1), the same on every machine.
class RandomNumbers {
 public:
  explicit RandomNumbers(std::uint32_t seed) : seed_(seed) {}

  float next() { return static_cast<float>(2 * unit() - 1); }
  /// In (0, 1).
  double unit() {
    const auto numbers =
        kernels::philox({static_cast<std::uint32_t>(count_ / 4), 0, 0, 0}, {seed_, 0});
    return (numbers[count_++ % 4] + 0.5) * 0x1p-32;
  }
  std::vector<float> vector(std::int64_t size, float scale = 1) {
    std::vector<float> values(size);
    for (float& value : values) value = scale * next();
    return values;
  }

 private:
  std::uint32_t seed_;
  std::uint64_t count_ = 0;
};

inline ConstMatrix const_matrix(const std::vector<float>& values, std::int64_t cols) {
  return {values.data(), std::ssize(values) / cols, cols, cols};
}
inline Matrix matrix(std::vector<float>& values, std::int64_t cols) {
  return {values.data(), std::ssize(values) / cols, cols, cols};
}

}  // namespace paceline::drafter
