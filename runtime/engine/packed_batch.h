#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "drafter/token_tree.h"
#include "kernels/drafting_params.h"
#include "runtime/engine/scheduler.h"

namespace paceline::runtime {

/// A sequence that a step samples for: its rows with logits stand together, the row of its last
/// known token first, then those of its tree's nodes.
struct SampledSequence {
  std::uint64_t uid = 0;
  std::int32_t first = 0;        // its first row with logits, counted among those
  std::int32_t tree = -1;        // among those of the plan's generation rows; -1: a prompt's, none
  std::int32_t most_tokens = 0;  // that the step can give it; see Sequence::awaited
};

/// One step's rows, as the model sees them: context rows first, generation rows after, each of
/// these with its draft tree behind it. All host memory; filled again each step without allocating
/// once it has grown.
struct PackedBatch {
  std::vector<std::int32_t> tokens;      // [M]
  std::vector<std::int32_t> positions;   // [M]
  std::vector<kernels::RowPlace> rows;   // [M]
  std::vector<std::int32_t> ancestors;   // slots, see RowPlace
  std::vector<std::int32_t> page_table;  // [sequences, page_stride]
  std::int64_t page_stride = 0;
  std::vector<std::int32_t> sampled_rows;      // [R]: rows whose logits are needed
  std::vector<kernels::SamplingRow> sampling;  // [R]
  std::vector<SampledSequence> sampled;
  // How their trees are walked when a token has been chosen for each of the R rows.
  std::vector<kernels::AcceptPlan> accept;  // of each in `sampled`
  std::vector<std::int32_t> tree_tokens;    // [R]; of a tree's root not read
  std::vector<std::int32_t> tree_parents;   // [R]: nodes of the same tree, -1: its root
  // What the device fills in, see pack_for_device.
  std::vector<kernels::TreePlace> places;
  std::vector<kernels::ResumePlan> resumes;

  std::int64_t size() const { return static_cast<std::int64_t>(tokens.size()); }
  kernels::PageTable host_page_table() const { return {page_table.data(), page_stride}; }
};

/// Lays a plan out; `trees` has one tree for each of plan.generation, within its draft shape.
/// Example: a prompt of 5 fed in chunks of 3 beside a sequence of 9 known tokens with the tree
/// a(b, c):
///
///   row         0  1  2 | 3  4  5  6
///   sequence    0  0  0 | 1  1  1  1
///   token       .  .  . | .  a  b  c
///   position    0  1  2 | 8  9 10 10
///   slot        0  1  2 | 8  9 10 11
///   ancestors           |    9 9,10 9,11     (slots)
///   sampled             | 0  1  2  3
void pack(const StepPlan& plan, std::span<const drafter::TokenTree> trees, PackedBatch& batch);

/// The same where the host knows neither the trees nor, of sequences with `awaited` tokens, the
/// last known one: behind each row in generation there is room for its largest tree. What is
/// missing comes from resume_sequences, with the heads that the step before left (a sequence's is
/// that of its hidden row), and from place_trees. searches[i] is where the tree of
/// plan.generation[i] will stand among those found; -1: there is none.
void pack_for_device(const StepPlan& plan, std::span<const std::int32_t> searches,
                     PackedBatch& batch);

/// Rounds the numbers of rows and of rows with logits up, so that fewer of them are different: by
/// at most an eighth, and not beyond most_rows and most_sampled. The rows added repeat the last
/// one: they compute what it does and write the same to the same slot, and nobody looks at them.
/// Where the device places trees they are room behind the last root.
void pad(PackedBatch& batch, std::int64_t most_rows, std::int64_t most_sampled);

}  // namespace paceline::runtime
