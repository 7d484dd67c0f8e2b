#pragma once

#include <cstdint>
#include <vector>

#include "kernels/params.h"

namespace paceline::kernels {

/// What chooses a token by each of `rows` from the logits of as many rows; the tokens begin as -2,
/// which nobody chooses. All three must outlive it.
inline SelectTokensParams select_params(const std::vector<float>& logits,
                                        const std::vector<SamplingRow>& rows,
                                        std::vector<std::int32_t>& tokens) {
  tokens.assign(rows.size(), -2);
  return {.logits = logits.data(),
          .sampling = rows.data(),
          .tokens = tokens.data(),
          .rows = static_cast<std::int64_t>(rows.size()),
          .vocab = static_cast<std::int64_t>(logits.size() / rows.size())};
}

}  // namespace paceline::kernels
