#include "runtime/engine/packed_batch.h"

#include <algorithm>
#include <bit>

#include "kernels/core/error.h"

namespace paceline::runtime {
namespace {

/// The tree of a sequence in a step.
struct Draft {
  std::int32_t index = -1;                   // among the plan's generation rows; -1: a prompt's
  const drafter::TokenTree* tree = nullptr;  // null: the device places it, if there is one
  std::int32_t search = -1;
  std::int32_t rows = 0;  // behind the last known token's, nodes or room for them
};

void append_known_rows(const PlannedRows& planned, std::int32_t index, PackedBatch& batch) {
  const Sequence& sequence = *planned.sequence;
  if (sequence.awaited > 0) {  // resume_sequences knows
    batch.tokens.push_back(-1);
    batch.positions.push_back(0);
    batch.rows.push_back({.sequence = index});
    return;
  }
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

template <typename T>
void repeat_last(std::vector<T>& values, std::int64_t count) {
  if (!values.empty())
    values.resize(values.size() + static_cast<std::size_t>(count), T(values.back()));
}

void repeat_last_row(PackedBatch& batch, std::int64_t count) {
  repeat_last(batch.tokens, count);
  repeat_last(batch.positions, count);
  repeat_last(batch.rows, count);
}

void repeat_last_sampled(PackedBatch& batch, std::int64_t count) {
  repeat_last(batch.sampled_rows, count);
  repeat_last(batch.sampling, count);
  repeat_last(batch.tree_tokens, count);
  repeat_last(batch.tree_parents, count);
}

void append_sampled_tree(const Sequence& sequence, const drafter::TokenTree& tree,
                         PackedBatch& batch) {
  for (const drafter::TreeNode& node : tree.nodes()) {
    batch.sampled_rows.push_back(batch.sampled_rows.back() + 1);
    batch.sampling.push_back(sequence.sampling(node.depth));
    batch.tree_tokens.push_back(node.token);
    batch.tree_parents.push_back(node.parent);
  }
}

// Room for a tree behind the last row, and for what leads to its nodes.
void append_place(const PlannedRows& planned, const Draft& draft, std::int32_t root,
                  PackedBatch& batch) {
  const kernels::TreePlace place{
      .tree = draft.search,
      .accept = static_cast<std::int32_t>(batch.accept.size()) - 1,
      .row = root,
      .sampled = batch.accept.back().first,
      .rows = draft.rows,
      .sampled_rows = draft.rows,
      .first_ancestor = static_cast<std::int32_t>(batch.ancestors.size()),
      .depth = draft.rows > 0 ? planned.draft.depth : 0};
  batch.places.push_back(place);
  batch.ancestors.resize(batch.ancestors.size() + static_cast<std::size_t>(draft.rows) *
                                                      static_cast<std::size_t>(place.depth));
  for (std::int32_t i = 1; i <= draft.rows; ++i) batch.sampled_rows.push_back(root + i);
  repeat_last(batch.sampling, draft.rows);
  repeat_last(batch.tree_tokens, draft.rows);
  repeat_last(batch.tree_parents, draft.rows);
  if (planned.sequence->awaited == 0) return;
  batch.resumes.push_back({.head = planned.sequence->hidden_row,
                           .row = root,
                           .sampled = place.sampled,
                           .accept = place.accept,
                           .search = draft.search});
}

// Logits for the last known token's row and the tree's, which follow it.
void append_samples(const PlannedRows& planned, const Draft& draft, std::int32_t index,
                    PackedBatch& batch) {
  const Sequence& sequence = *planned.sequence;
  const auto first = static_cast<std::int32_t>(batch.sampled_rows.size());
  batch.sampled.push_back({.uid = sequence.request.uid,
                           .first = first,
                           .tree = draft.index,
                           .most_tokens = 1 + (draft.rows > 0 ? planned.draft.depth : 0)});
  batch.accept.push_back({.first = first,
                          .nodes = draft.tree != nullptr ? draft.rows : 0,
                          .sequence = index,
                          .first_slot = sequence.length(),
                          .most_tokens = sequence.request.max_new_tokens - sequence.generated(),
                          .stops = sequence.request.ignore_eos ? 0 : 1});
  const auto root = static_cast<std::int32_t>(batch.size()) - 1 - draft.rows;
  batch.sampled_rows.push_back(root);
  batch.sampling.push_back(sequence.sampling(0));
  batch.tree_tokens.push_back(sequence.tokens.back());
  batch.tree_parents.push_back(drafter::TreeNode::kRoot);
  if (draft.tree != nullptr) {
    append_sampled_tree(sequence, *draft.tree, batch);
  } else if (draft.index >= 0) {
    append_place(planned, draft, root, batch);
  }
}

void append(const PlannedRows& planned, const Draft& draft, std::int32_t index,
            PackedBatch& batch) {
  check(draft.rows <= planned.draft.max_nodes, "a tree of {} nodes where {} are planned",
        draft.rows, planned.draft.max_nodes);
  append_known_rows(planned, index, batch);
  if (draft.tree != nullptr) {
    append_tree_rows(*planned.sequence, *draft.tree, index, batch);
  } else {
    repeat_last_row(batch, draft.rows);
  }
  const Sequence& sequence = *planned.sequence;
  std::copy(sequence.pages.begin(), sequence.pages.end(),
            batch.page_table.begin() + index * batch.page_stride);
  if (planned.samples) append_samples(planned, draft, index, batch);
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
  batch.places.clear();
  batch.resumes.clear();
  batch.page_stride = 0;
}

/// To one of eight sizes from each power of two to the next: 16, 18, 20, ..., 32, 36, ...
std::int64_t rounded_up(std::int64_t size) {
  const auto power = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(size)));
  const std::int64_t step = std::max<std::int64_t>(1, power / 8);
  return (size + step - 1) / step * step;
}

// Everything but generation: an empty page table and the prompts' rows.
void begin(const StepPlan& plan, PackedBatch& batch) {
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
  for (const PlannedRows& planned : plan.context) append(planned, {}, index++, batch);
}

}  // namespace

void pack(const StepPlan& plan, std::span<const drafter::TokenTree> trees, PackedBatch& batch) {
  check(trees.size() == plan.generation.size(), "{} draft trees for {} sequences", trees.size(),
        plan.generation.size());
  begin(plan, batch);
  auto index = static_cast<std::int32_t>(plan.context.size());
  for (std::size_t i = 0; i < plan.generation.size(); ++i) {
    const Draft draft{
        .index = static_cast<std::int32_t>(i), .tree = &trees[i], .rows = trees[i].size()};
    append(plan.generation[i], draft, index++, batch);
  }
}

void pack_for_device(const StepPlan& plan, std::span<const std::int32_t> searches,
                     PackedBatch& batch) {
  check(searches.size() == plan.generation.size(), "{} searches for {} sequences", searches.size(),
        plan.generation.size());
  begin(plan, batch);
  auto index = static_cast<std::int32_t>(plan.context.size());
  for (std::size_t i = 0; i < plan.generation.size(); ++i) {
    const PlannedRows& planned = plan.generation[i];
    const Draft draft{.index = static_cast<std::int32_t>(i),
                      .search = searches[i],
                      .rows = searches[i] < 0 ? 0 : planned.draft.max_nodes};
    append(planned, draft, index++, batch);
  }
}

void pad(PackedBatch& batch, std::int64_t most_rows, std::int64_t most_sampled) {
  const auto missing = [](std::int64_t size, std::int64_t most) {
    return std::max(size, std::min(rounded_up(size), most)) - size;
  };
  const std::int64_t rows = missing(batch.size(), most_rows);
  repeat_last_row(batch, rows);
  const std::int64_t sampled = missing(std::ssize(batch.sampled_rows), most_sampled);
  repeat_last_sampled(batch, sampled);
  if (batch.places.empty()) return;
  batch.places.back().rows += static_cast<std::int32_t>(rows);
  batch.places.back().sampled_rows += static_cast<std::int32_t>(sampled);
}

}  // namespace paceline::runtime
