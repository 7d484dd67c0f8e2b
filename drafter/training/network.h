#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "drafter/config.h"
#include "drafter/training/activation.h"
#include "drafter/training/exit_layers.h"
#include "drafter/training/gemm.h"
#include "drafter/training/parameters.h"
#include "drafter/training/recurrence.h"
#include "drafter/training/row_ops.h"
#include "drafter/training/teacher_data.h"
#include "kernels/core/thread_pool.h"

namespace paceline::drafter {

/// What a head is trained towards.
struct LossOptions {
  /// Share of the KL divergence from the teacher's distribution over the draft vocabulary; the rest
  /// is the cross-entropy of the text's own tokens.
  float teacher_share = 1.0f;
  /// Weight of each step's loss, one an entry: their number is the depth of the recurrence.
  std::vector<float> depth_weights{1.0f, 0.9f, 0.81f, 0.729f, 0.6561f};

  int depth() const { return static_cast<int>(depth_weights.size()); }
  bool operator==(const LossOptions&) const = default;
};

/// Sums over (position, step) pairs. A pair whose token the draft vocabulary lacks is masked: it
/// counts nowhere, and the recurrence reads past it.
struct LossSums {
  double loss = 0;    ///< of depth weight * loss
  double weight = 0;  ///< of the depth weights
  double mean() const { return weight > 0 ? loss / weight : 0; }
  void add(const LossSums& other);
};

/// A ReDrafter head unrolled over `depth` teacher-forced steps of its recurrence, its loss, and
/// the gradient of that. The same bits whatever the pool's number of threads.
class HeadNetwork {
 public:
  /// base_output [outputs, hidden]: the base's output rows of the draft vocabulary, from which the
  /// teacher's distributions are recomputed. It, gemm and pool must outlive the network. Throws
  /// FatalError if base_output has another shape, and ConfigError if there is no depth weight, one
  /// that is negative or not finite, or a teacher_share that is not within 0 to 1.
  HeadNetwork(const DrafterConfig& config, const LossOptions& loss, ConstMatrix base_output,
              Gemm& gemm, kernels::ThreadPool& pool);

  /// Adds the gradient of the summed loss (not of its mean) over `positions` of `text` to
  /// `gradients`. Memory grows with positions * depth * outputs. Throws FatalError if what the
  /// positions name is not all there.
  LossSums add_gradients(const HeadTensors& head, const TeacherRows& text,
                         std::span<const DraftPosition> positions, HeadTensors& gradients);

  static constexpr std::int32_t kNotDrafted = INT32_MAX;
  /// ranks [positions, depth]: how many tokens the head holds more likely than the text's own,
  /// given the text up to it; kNotDrafted where the draft vocabulary lacks it or the position has
  /// fewer steps. Returns the loss.
  LossSums evaluate(const HeadTensors& head, const TeacherRows& text,
                    std::span<const DraftPosition> positions, std::span<std::int32_t> ranks);

  const LossOptions& loss() const { return loss_; }

 private:
  /// Distinct rows of a text in the order of their first use: what is computed once a row is shared
  /// by all positions whose steps pass it.
  struct RowSet {
    std::vector<std::int32_t> rows;
    std::vector<std::int32_t> slots;  // of each row of the text; -1: not in the set

    void clear(std::int64_t text_rows);
    std::int32_t slot(std::int32_t row);
  };

  void check_text(const TeacherRows& text, std::span<const DraftPosition> positions) const;
  // Chooses the positions that have steps, and their pairs.
  void lay_out(const TeacherRows& text, std::span<const DraftPosition> positions);
  // The head's logits of all pairs.
  Matrix forward(const HeadTensors& head, const TeacherRows& text);
  // Turns the logits into their gradient.
  LossSums compute_loss(const TeacherRows& text, Matrix logits);
  ConstMatrix output_of(const HeadTensors& head) const {
    return config_.tied_head ? base_output_ : head.output;
  }

  DrafterConfig config_;
  LossOptions loss_;
  ConstMatrix base_output_;
  std::vector<std::int32_t> draft_index_;  // [vocab]: row of the output matrix; -1: none
  Gemm& gemm_;
  kernels::ThreadPool& pool_;
  Recurrence recurrence_;
  ExitLayers exit_;

  std::vector<DraftPosition> active_;       // positions that have steps
  std::vector<std::int32_t> active_index_;  // where they stand among those given
  RowSet read_, taught_;                    // rows whose next token is read; teacher rows
  std::vector<std::int32_t> read_slots_;    // [depth, active]
  RecurrenceInputs inputs_;
  // Pairs (position, step) whose token can be drafted, a row of logits each, step by step:
  std::vector<RowTarget> targets_;
  std::vector<std::int32_t> state_rows_;      // step * active + position
  std::vector<std::int32_t> hidden_rows_;     // of the text
  Activation read_embeddings_;                // [read, hidden]
  Activation joined_;                         // [pairs, 2 hidden]
  Activation taught_hidden_, probabilities_;  // [taught, hidden], [taught, outputs]
  Activation d_states_;                       // [depth * active, hidden]
  std::vector<float> negative_entropy_;       // [taught]
  std::vector<float> losses_;                 // [pairs]
};

}  // namespace paceline::drafter
