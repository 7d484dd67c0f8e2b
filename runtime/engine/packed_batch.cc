#include "runtime/engine/packed_batch.h"

#include <algorithm>
#include <bit>

#include "kernels/core/error.h"

namespace paceline::runtime {
namespace {

const drafter::TokenTree kNoTree;

void append_known_rows(const PlannedRows& planned, std::int32_t index, PackedBatch& batch) {
  const Sequence& sequence = *planned.sequence;
  for (std::int32_t i = 0; i < planned.rows; ++i) {
    const std::int32_t position = sequence.computed + i;
    batch.tokens.push_back(sequence.tokens[static_cast<std::size_t>(position)]);
    batch.positions.push_back(position);
    batch.rows.push_back({.sequence = index,
                          .position = position,
                          .slot = position,
                          .base = position + 1,
                          .first_ancestor = 0});
  }
}

// Node i waits in the slot i behind the last known token, whatever its depth; its path's slots are
// its ancestors.
void append_tree_rows(const Sequence& sequence, const drafter::TokenTree& tree, std::int32_t index,
                      PackedBatch& batch) {
  const drafter::AncestorLists paths = drafter::ancestor_lists(tree);
  const auto first_ancestor = static_cast<std::int32_t>(batch.ancestors.size());
  for (const std::int32_t node : paths.nodes) {
    batch.ancestors.push_back(sequence.length() + node);
  }
  for (std::int32_t i = 0; i < tree.size(); ++i) {
    const drafter::TreeNode& node = tree.nodes()[static_cast<std::size_t>(i)];
    const std::int32_t position = sequence.length() + node.depth - 1;
    batch.tokens.push_back(node.token);
    batch.positions.push_back(position);
    batch.rows.push_back(
        {.sequence = index,
         .position = position,
         .slot = sequence.length() + i,
         .base = sequence.length(),
         .first_ancestor = first_ancestor + paths.first[static_cast<std::size_t>(i)]});
  }
}

// Logits for the last known token's row and the tree's, which follow it.
void append_samples(const PlannedRows& planned, const drafter::TokenTree& tree, std::int32_t index,
                    PackedBatch& batch) {
  const Sequence& sequence = *planned.sequence;
  const auto first = static_cast<std::int32_t>(batch.sampled_rows.size());
  batch.sampled.push_back({.sequence = planned.sequence, .first = first, .tree = &tree});
  batch.accept.push_back({.first = first,
                          .nodes = tree.size(),
                          .sequence = index,
                          .first_slot = sequence.length(),
                          .most_tokens = sequence.request.max_new_tokens - sequence.generated(),
                          .stops = sequence.request.ignore_eos ? 0 : 1});
  const auto root = static_cast<std::int32_t>(batch.size()) - 1 - tree.size();
  batch.sampled_rows.push_back(root);
  batch.sampling.push_back(sequence.sampling(0));
  batch.tree_tokens.push_back(sequence.tokens.back());
  batch.tree_parents.push_back(drafter::TreeNode::kRoot);
  for (std::int32_t i = 0; i < tree.size(); ++i) {
    const drafter::TreeNode& node = tree.nodes()[static_cast<std::size_t>(i)];
    batch.sampled_rows.push_back(root + 1 + i);
    batch.sampling.push_back(sequence.sampling(node.depth));
    batch.tree_tokens.push_back(node.token);
    batch.tree_parents.push_back(node.parent);
  }
}

void append(const PlannedRows& planned, const drafter::TokenTree& tree, std::int32_t index,
            PackedBatch& batch) {
  check(tree.size() <= planned.draft.max_nodes, "a tree of {} nodes where {} are planned",
        tree.size(), planned.draft.max_nodes);
  append_known_rows(planned, index, batch);
  append_tree_rows(*planned.sequence, tree, index, batch);
  const Sequence& sequence = *planned.sequence;
  std::copy(sequence.pages.begin(), sequence.pages.end(),
            batch.page_table.begin() + index * batch.page_stride);
  if (planned.samples) append_samples(planned, tree, index, batch);
}

void clear(PackedBatch& batch) {
  batch.tokens.clear();
  batch.positions.clear();
  batch.rows.clear();
  batch.ancestors.clear();
  batch.sampled_rows.clear();
  batch.sampling.clear();
  batch.sampled.clear();
  batch.accept.clear();
  batch.tree_tokens.clear();
  batch.tree_parents.clear();
  batch.page_stride = 0;
}

/// To one of eight sizes from each power of two to the next: 16, 18, 20, ..., 32, 36, ...
std::int64_t rounded_up(std::int64_t size) {
  const auto power = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(size)));
  const std::int64_t step = std::max<std::int64_t>(1, power / 8);
  return (size + step - 1) / step * step;
}

template <typename T>
void repeat_last(std::vector<T>& values, std::int64_t size) {
  if (!values.empty()) values.resize(static_cast<std::size_t>(size), T(values.back()));
}

}  // namespace

void pack(const StepPlan& plan, std::span<const drafter::TokenTree> trees, PackedBatch& batch) {
  check(trees.size() == plan.generation.size(), "{} draft trees for {} sequences", trees.size(),
        plan.generation.size());
  clear(batch);
  for (const auto* group : {&plan.context, &plan.generation}) {
    for (const PlannedRows& planned : *group) {
      batch.page_stride =
          std::max(batch.page_stride, static_cast<std::int64_t>(planned.sequence->pages.size()));
    }
  }
  const std::size_t sequences = plan.context.size() + plan.generation.size();
  // A power of two, so that a growing text does not change a step's sizes all the time.
  batch.page_stride =
      static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(batch.page_stride)));
  batch.page_table.assign(sequences * static_cast<std::size_t>(batch.page_stride), -1);
  std::int32_t index = 0;
  for (const PlannedRows& planned : plan.context) append(planned, kNoTree, index++, batch);
  for (std::size_t i = 0; i < plan.generation.size(); ++i) {
    append(plan.generation[i], trees[i], index++, batch);
  }
}

void pad(PackedBatch& batch, std::int64_t most_rows, std::int64_t most_sampled) {
  const auto padded = [](std::int64_t size, std::int64_t most) {
    return std::max(size, std::min(rounded_up(size), most));
  };
  const std::int64_t rows = padded(batch.size(), most_rows);
  repeat_last(batch.tokens, rows);
  repeat_last(batch.positions, rows);
  repeat_last(batch.rows, rows);
  const std::int64_t sampled = padded(std::ssize(batch.sampled_rows), most_sampled);
  repeat_last(batch.sampled_rows, sampled);
  repeat_last(batch.sampling, sampled);
  repeat_last(batch.tree_tokens, sampled);
  repeat_last(batch.tree_parents, sampled);
}

}  // namespace paceline::runtime
