#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/drafting_params.h"

namespace paceline::kernels {

/// The nodes accepted of a tree whose nodes wait from slot `first_slot` on.
inline AcceptedPath path_of(std::int32_t sequence, std::int32_t first_slot,
                            const std::vector<std::int32_t>& nodes) {
  AcceptedPath path{.sequence = sequence, .first_slot = first_slot};
  path.count = static_cast<std::int32_t>(nodes.size());
  std::ranges::copy(nodes, path.nodes);
  return path;
}

}  // namespace paceline::kernels
