#pragma once

#include <cstdint>

#include "kernels/core/host_device.h"
#include "kernels/drafting_params.h"

// Verification by equality: from the root on, the token that was chosen is followed where a child
// of the node equals it.

namespace paceline::kernels {

/// Whether a tree's walk ends with its `count`-th token, whatever the tree has.
PACELINE_HOST_DEVICE inline bool ends_walk(const AcceptPathsParams& params, const AcceptPlan& plan,
                                           std::int32_t token, std::int32_t count) {
  if (token < 0 || count >= plan.most_tokens) return true;
  if (plan.stops == 0) return false;
  for (std::int64_t i = 0; i < params.num_stop_tokens; ++i) {
    if (params.stop_tokens[i] == token) return true;
  }
  return false;
}

/// Where a step leaves the sequence of a path.
PACELINE_HOST_DEVICE inline SequenceHead head_after(const AcceptPlan& plan, std::int32_t count,
                                                    std::int32_t token) {
  return {plan.first_slot + count + 1, token, plan.most_tokens - count - 1};
}

/// The op for one tree. Throws FatalError for a path of more than kMaxPathLength nodes.
void walk_tree(const AcceptPathsParams& params, std::int64_t tree);

/// Throws FatalError unless the nodes of every path can be moved one after the other (see
/// CompactKvParams).
void check_paths(const CompactKvParams& params);

/// Whether `node`, the one of index `i` on its path, may be moved after the one before it.
PACELINE_HOST_DEVICE inline bool in_order(const AcceptedPath& path, std::int32_t i) {
  return path.nodes[i] >= i && (i == 0 || path.nodes[i - 1] < path.nodes[i]);
}

}  // namespace paceline::kernels
