#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "drafter/drafter.h"
#include "tests/drafter/random_tree.h"

namespace paceline::drafter {

inline const Tokens kTokens = {3, 199, 50, 17, 0, 60, 61, 62, 63};

/// Requests of many shapes, greedy and sampled, over shared tokens and hidden states [9, hidden].
inline std::vector<DraftRequest> mixed_requests() {
  const DraftShape shapes[] = {{1, 1}, {4, 3}, {0, 3},     {64, 2},
                               {3, 5}, {2, 0}, {8, 4, 10}, {5, 16, 40, true}};
  std::vector<DraftRequest> requests;
  for (std::int32_t i = 0; i < 8; ++i) {
    DraftRequest request;
    request.tokens = std::span(kTokens).first(static_cast<std::size_t>(i) + 1);
    request.hidden_row = 8 - i;
    request.sampling = {.temperature = i % 2 == 0 ? 0.0f : 0.7f,
                        .seed = 11,
                        .index = static_cast<std::uint64_t>(i) + 1};
    request.shape = shapes[i];
    requests.push_back(request);
  }
  requests.back().max_depth = 6;
  return requests;
}

}  // namespace paceline::drafter
