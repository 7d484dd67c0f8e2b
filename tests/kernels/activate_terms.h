#pragma once

#include <cstdint>
#include <vector>

#include "kernels/params.h"
#include "tests/kernels/every_cpu.h"

namespace paceline::kernels {

/// Inputs of `activate`, with awkward numbers among them, for every choice of its terms.
struct ActivateTerms {
  ActivateTerms(std::int64_t num_rows, std::int64_t row_width)
      : rows(num_rows),
        width(row_width),
        in(awkward_floats(rows * width, false, 7)),
        addend(awkward_floats(rows * width, false, 8)),
        bias(awkward_floats(width, false, 9)),
        residual(awkward_floats(rows * width, false, 10)) {}

  static constexpr int kChoices = 16;
  /// A bit of `terms` for each of addend, bias, residual and silu; without `out`.
  ActivateParams params(int terms) const {
    return {.in = in.data(),
            .addend = (terms & 1) != 0 ? addend.data() : nullptr,
            .bias = (terms & 2) != 0 ? bias.data() : nullptr,
            .residual = (terms & 4) != 0 ? residual.data() : nullptr,
            .activation = (terms & 8) != 0 ? Activation::kSilu : Activation::kNone,
            .rows = rows,
            .width = width};
  }

  std::int64_t rows, width;
  std::vector<float> in, addend, bias, residual;
};

}  // namespace paceline::kernels
