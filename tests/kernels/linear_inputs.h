#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/params.h"
#include "kernels/reference/ops.h"
#include "tests/kernels/every_cpu.h"

/// What every backend's `linear` may be asked to do to its rows first.
namespace paceline::kernels {

/// The rows of a product with all that its input stage reads.
struct StagedRows {
  LinearInput::Kind kind = LinearInput::Kind::kPlain;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::vector<float> in;        // [rows, cols], or gate and up
  std::vector<float> norm;      // [cols]
  std::vector<float> partials;  // [merges.size(), rows, cols]
  std::vector<int> merges;

  LinearInput input(float* sum) const {
    return {kind, norm.data(), 1e-5f, partials.data(), merges, sum};
  }
  std::string name() const {
    const char* const kinds[] = {"plain", "silu_mul", "rms_norm", "sum of "};
    return std::string(kinds[static_cast<int>(kind)]) +
           (merges.empty() ? "" : std::to_string(merges.size()) + " and rms_norm") + ", " +
           std::to_string(rows) + " rows of " + std::to_string(cols);
  }

  /// What is multiplied, by the reference's ops one after the other. `sum` is [rows, cols].
  std::vector<float> multiplied(std::vector<float>& sum) const {
    if (kind == LinearInput::Kind::kPlain) return in;
    std::vector<float> out(static_cast<std::size_t>(rows * cols));
    if (kind == LinearInput::Kind::kSiluMul) {
      for (std::int64_t m = 0; m < rows; ++m) {
        const float* gate = in.data() + 2 * m * cols;
        reference::silu_mul(gate, gate + cols, out.data() + m * cols, cols);
      }
      return out;
    }
    const bool sums = kind == LinearInput::Kind::kSumRmsNorm;
    if (sums) {
      reference::sum_partials({partials.data(), merges, rows * cols, in.data(), sum.data()});
    }
    reference::rms_norm(
        {sums ? sum.data() : in.data(), norm.data(), 1e-5f, out.data(), rows, cols});
    return out;
  }
};

/// A binary tree over `count` partial sums. 5: ((0 1)(2 3)) 4.
inline std::vector<int> tree_of(int count) {
  std::vector<int> merges;
  int depth = 0;
  for (int p = 0; p < count; ++p) {
    const int full = std::countr_one(static_cast<unsigned>(p));
    merges.push_back(p + 1 < count ? full : depth);
    depth += 1 - merges.back();
  }
  return merges;
}

/// Every kind, sums of 1 to 8 partials. Some rows are not finite, and some have zeros, denormals
/// and the largest numbers in them.
inline std::vector<StagedRows> every_input(std::int64_t rows, std::int64_t cols, unsigned seed) {
  using Kind = LinearInput::Kind;
  const auto floats = [&](std::int64_t count) {
    std::vector<float> values = random_floats(static_cast<std::size_t>(count), 3.0f, ++seed);
    const std::vector<float> awkward = awkward_floats(values.size(), seed % 2 == 0, seed);
    // Every third row, so that the others have sums that are finite.
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (static_cast<std::int64_t>(i) / cols % 3 == 2) values[i] = awkward[i];
    }
    return values;
  };
  std::vector<StagedRows> inputs;
  inputs.push_back({Kind::kPlain, rows, cols, floats(rows * cols), {}, {}, {}});
  inputs.push_back({Kind::kSiluMul, rows, cols, floats(rows * 2 * cols), {}, {}, {}});
  inputs.push_back({Kind::kRmsNorm, rows, cols, floats(rows * cols), floats(cols), {}, {}});
  for (int count = 1; count <= 8; ++count) {
    inputs.push_back({Kind::kSumRmsNorm, rows, cols, floats(rows * cols), floats(cols),
                      floats(count * rows * cols), tree_of(count)});
  }
  return inputs;
}

}  // namespace paceline::kernels
