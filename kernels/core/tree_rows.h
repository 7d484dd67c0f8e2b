#pragma once

#include <cstdint>

#include "kernels/core/host_device.h"
#include "kernels/drafting_params.h"

// What the ops that finish a packed batch on the device do for one sequence, and for one row.

namespace paceline::kernels {

/// resume_sequences for one of them.
PACELINE_HOST_DEVICE inline void resume_sequence(const ResumeSequencesParams& params,
                                                 std::int64_t index) {
  const ResumePlan& plan = params.plans[index];
  const SequenceHead& head = params.heads[plan.head];
  const BatchArrays& batch = params.batch;
  const std::int32_t position = head.length - 1;
  const auto next = static_cast<std::uint64_t>(head.length);  // the index of the token to be chosen
  batch.tokens[plan.row] = head.token;
  batch.positions[plan.row] = position;
  RowPlace& at = batch.rows_at[plan.row];
  at.position = at.slot = position;
  at.base = head.length;
  batch.sampling[plan.sampled].index = next;
  AcceptPlan& accept = batch.accept[plan.accept];
  accept.first_slot = head.length;
  accept.most_tokens = head.most_tokens;
  if (plan.search < 0) return;
  params.beams[plan.search].root = head.token;
  params.beams[plan.search].sampling.index = next;
}

/// Whether a tree fits into its place.
PACELINE_HOST_DEVICE inline bool fits(const PathTree& tree, const TreePlace& place) {
  return tree.nodes <= place.rows && tree.nodes <= place.sampled_rows;
}

/// The `i`-th row behind the root's, of all; `node` is the first of the tree's, which has `nodes`.
/// False, and nothing is done, if the node is deeper than its place says.
PACELINE_HOST_DEVICE inline bool place_row(const BatchArrays& batch, const TreePlace& place,
                                           const PathNode* node, std::int32_t nodes,
                                           std::int32_t i) {
  const RowPlace root = batch.rows_at[place.row];
  const std::int32_t row = place.row + 1 + i;
  if (i >= nodes) {
    batch.tokens[row] = batch.tokens[place.row];
    batch.positions[row] = batch.positions[place.row];
    batch.rows_at[row] = root;
    return true;
  }
  const std::int32_t depth = node[i].depth;
  if (depth > place.depth) return false;
  const std::int32_t first_ancestor = place.first_ancestor + i * place.depth;
  std::int32_t on_path = i;
  for (std::int32_t d = depth; d-- > 0;) {
    batch.ancestors[first_ancestor + d] = root.base + on_path;
    on_path = node[on_path].parent;
  }
  const std::int32_t position = root.base + depth - 1;
  batch.tokens[row] = node[i].token;
  batch.positions[row] = position;
  batch.rows_at[row] = {.sequence = root.sequence,
                        .position = position,
                        .slot = root.base + i,
                        .base = root.base,
                        .first_ancestor = first_ancestor};
  return true;
}

/// The same of the rows with logits.
PACELINE_HOST_DEVICE inline void place_sampled_row(const BatchArrays& batch, const TreePlace& place,
                                                   const PathNode* node, std::int32_t nodes,
                                                   std::int32_t i) {
  const std::int32_t row = place.sampled + 1 + i;
  batch.sampling[row] = batch.sampling[place.sampled];
  batch.tree_tokens[row] = i < nodes ? node[i].token : -1;
  batch.tree_parents[row] = i < nodes ? node[i].parent : -1;
  if (i < nodes) batch.sampling[row].index += static_cast<std::uint64_t>(node[i].depth);
}

/// The ops, for all. place_trees throws FatalError for a tree that does not fit into its place.
void resume_each(const ResumeSequencesParams& params);
void place_each_tree(const PlaceTreesParams& params);

}  // namespace paceline::kernels
