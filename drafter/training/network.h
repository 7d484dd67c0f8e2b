#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "drafter/config.h"
#include "drafter/training/activation.h"
#include "drafter/training/draft_pairs.h"
#include "drafter/training/gemm.h"
#include "drafter/training/parameters.h"
#include "drafter/training/teacher_data.h"
#include "kernels/core/thread_pool.h"

namespace paceline::drafter {

/// What a head is trained towards.
struct LossOptions {
  /// Share of the KL divergence from the teacher's distribution over the draft vocabulary; the rest
  /// is the cross-entropy of the text's own tokens.
  float teacher_share = 1.0f;
  /// Weight of each step's loss, one an entry: their number is the depth, of ReDrafter's recurrence
  /// or of Medusa's heads.
  std::vector<float> depth_weights{1.0f, 0.9f, 0.81f, 0.729f, 0.6561f};

  int depth() const { return static_cast<int>(depth_weights.size()); }
  bool operator==(const LossOptions&) const = default;
};

/// Sums over (position, step) pairs. A pair whose token the draft vocabulary lacks is masked: it
/// counts nowhere.
struct LossSums {
  double loss = 0;    ///< of depth weight * loss
  double weight = 0;  ///< of the depth weights
  double mean() const { return weight > 0 ? loss / weight : 0; }
  void add(const LossSums& other);
};

/// A head of either kind over `depth` teacher-forced steps, its loss, and the gradient of that. The
/// same bits whatever the pool's number of threads.
class HeadNetwork {
 public:
  virtual ~HeadNetwork() = default;
  HeadNetwork(const HeadNetwork&) = delete;
  HeadNetwork& operator=(const HeadNetwork&) = delete;

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

 protected:
  /// See make_network.
  HeadNetwork(const DrafterConfig& config, const LossOptions& loss, ConstMatrix base_output,
              Gemm& gemm, kernels::ThreadPool& pool);

  /// logits [pairs, outputs] of pairs(), which are some.
  virtual void forward(const HeadTensors& head, const TeacherRows& text, Matrix logits) = 0;
  /// Adds the gradients that follow from that of the logits; after `forward`.
  virtual void backward(const HeadTensors& head, ConstMatrix d_logits, HeadTensors& gradients) = 0;

  const DraftPairs& pairs() const { return pairs_; }
  const DrafterConfig& config() const { return config_; }
  kernels::ThreadPool& pool() const { return pool_; }
  /// The output matrix of one head: its own, or the base's.
  ConstMatrix output_of(const HeadTensors& head, std::size_t index) const {
    return config_.tied_head ? base_output_ : head.exits[index].output;
  }

 private:
  Matrix forward_pairs(const HeadTensors& head, const TeacherRows& text);
  // Turns the logits into their gradient.
  LossSums compute_loss(const TeacherRows& text, Matrix logits);

  DrafterConfig config_;
  LossOptions loss_;
  ConstMatrix base_output_;
  Gemm& gemm_;
  kernels::ThreadPool& pool_;
  DraftPairs pairs_;
  Activation logits_;                         // [pairs, outputs]
  Activation taught_hidden_, probabilities_;  // [taught, hidden], [taught, outputs]
  std::vector<float> negative_entropy_;       // [taught]
  std::vector<float> losses_;                 // [pairs]
};

/// The network of the config's kind. base_output [outputs, hidden]: the base's output rows of the
/// draft vocabulary, from which the teacher's distributions are recomputed. It, gemm and pool must
/// outlive the network. Throws FatalError if base_output has another shape, and ConfigError if
/// there is no depth weight, one that is negative or not finite, not one for each Medusa head, or a
/// teacher_share that is not within 0 to 1.
std::unique_ptr<HeadNetwork> make_network(const DrafterConfig& config, const LossOptions& loss,
                                          ConstMatrix base_output, Gemm& gemm,
                                          kernels::ThreadPool& pool);

}  // namespace paceline::drafter
