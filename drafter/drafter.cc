#include "drafter/drafter.h"

#include <algorithm>

#include "kernels/core/error.h"

namespace paceline::drafter {

void DraftStats::count(const TokenTree& tree) {
  ++drafts;
  nodes += tree.size();
  unmerged_rows += tree.unmerged_rows;
  saved_rows += tree.saved_rows;
}

void check_shape(const DraftShape& shape) {
  check(shape.width >= 0 && shape.width <= kMaxDraftWidth && shape.depth >= 0 &&
            shape.depth <= kMaxDraftDepth && shape.max_nodes >= 0,
        "a draft of {} beams of {} tokens, at most {} nodes", shape.width, shape.depth,
        shape.max_nodes);
}

DraftShape checked_shape(const DraftRequest& request) {
  DraftShape shape = request.shape;
  check_shape(shape);
  check(!request.tokens.empty(), "a draft for a request without tokens");
  shape.depth = std::clamp(request.max_depth, 0, shape.depth);
  return shape;
}

std::int32_t limited_nodes(const DraftShape& shape, std::int32_t width, std::int32_t depth) {
  if (shape.any_candidate && shape.max_nodes > 0 && width > 0 && depth > 0) return shape.max_nodes;
  const std::int32_t nodes = width * depth;
  return shape.max_nodes == 0 ? nodes : std::min(nodes, shape.max_nodes);
}

}  // namespace paceline::drafter
