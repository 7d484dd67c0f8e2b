#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "drafter/config.h"
#include "drafter/training/row_ops.h"
#include "drafter/training/teacher_data.h"

namespace paceline::drafter {

/// Distinct rows of a text in the order of their first use: what is computed once a row is shared
/// by all positions whose steps pass it.
struct RowSet {
  std::vector<std::int32_t> rows;
  std::vector<std::int32_t> slots;  ///< of each row of the text; -1: not in the set

  void clear(std::int64_t text_rows);
  std::int32_t slot(std::int32_t row);
};

/// The (position, step) pairs of a minibatch whose token can be drafted, step by step; each gets a
/// row of logits. A pair whose token the draft vocabulary lacks is masked: it is none of them.
class DraftPairs {
 public:
  explicit DraftPairs(const DrafterConfig& config);

  /// FatalError if what the positions name is not all there. Step i's weight is depth_weights[i].
  void lay_out(const TeacherRows& text, std::span<const DraftPosition> positions,
               std::span<const float> depth_weights);

  std::int64_t size() const { return std::ssize(targets_); }
  /// [pairs]; teacher rows are those of `taught`.
  std::span<const RowTarget> targets() const { return targets_; }
  /// [pairs]: rows of the text that the positions stand at.
  std::span<const std::int32_t> hidden_rows() const { return hidden_rows_; }
  /// [pairs]: step * active().size() + number of the active position.
  std::span<const std::int32_t> places() const { return places_; }
  /// [depth + 1]: where the pairs of each step begin, and the end.
  std::span<const std::int32_t> step_begins() const { return step_begins_; }

  /// Positions that have steps, and where they stand among those given.
  std::span<const DraftPosition> active() const { return active_; }
  std::span<const std::int32_t> active_index() const { return active_index_; }
  /// Rows whose teacher's distribution is needed.
  const RowSet& taught() const { return taught_; }

 private:
  void check_text(const TeacherRows& text, std::span<const DraftPosition> positions,
                  std::int64_t depth) const;

  std::int64_t vocab_size_;
  std::int64_t hidden_size_;
  std::vector<std::int32_t> draft_index_;  // [vocab]: row of the output matrix; -1: none
  std::vector<DraftPosition> active_;
  std::vector<std::int32_t> active_index_;
  RowSet taught_;
  std::vector<RowTarget> targets_;
  std::vector<std::int32_t> hidden_rows_;
  std::vector<std::int32_t> places_;
  std::vector<std::int32_t> step_begins_;
};

}  // namespace paceline::drafter
