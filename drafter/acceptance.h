#pragma once

#include <cstdint>
#include <vector>

namespace paceline::drafter {

/// What a step adds to a request: the tokens that plain decoding would have chosen one by one.
struct Accepted {
  /// At least one; the last was not in the tree, or ends its request.
  std::vector<std::int32_t> tokens;
  /// The nodes of all tokens but the last, by depth.
  std::vector<std::int32_t> nodes;
};

}  // namespace paceline::drafter
