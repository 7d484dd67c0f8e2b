#pragma once

#include <cstdint>
#include <istream>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "drafter/config.h"
#include "drafter/training/evaluation.h"
#include "drafter/training/gemm.h"
#include "drafter/training/network.h"
#include "drafter/training/optimizer.h"
#include "drafter/training/parameters.h"
#include "drafter/training/rank_sums.h"
#include "drafter/training/teacher_data.h"
#include "kernels/core/function_ref.h"
#include "kernels/core/thread_pool.h"
#include "parallel/communicator.h"

namespace paceline::drafter {

struct TrainingOptions {
  /// Of the products' factors; weights, sums and everything else are fp32.
  GemmPrecision precision = GemmPrecision::kFp32;
  LossOptions loss;
  AdamWOptions adamw;
  LearningRate rate;
  std::uint64_t seed = 0;  ///< of the first weights
  /// Positions that go through the network at once: bounds the memory, which holds
  /// positions * depth logits of the draft vocabulary and as much again for the teacher's.
  int positions_at_once = 256;
};

/// What one step did, over all ranks.
struct StepReport {
  std::uint64_t step = 0;    ///< steps done, this one included
  double loss = 0;           ///< mean over the minibatch, before the update
  double gradient_norm = 0;  ///< of the mean loss, before clipping
  float learning_rate = 0;
  double positions = 0;  ///< of the minibatch
};

/// Trains a head of either kind by distillation, data parallel: each rank takes its own part of
/// every minibatch, gradients are summed over the ranks, and each updates its own copy of the
/// weights with equal bits. The result depends on the number of ranks and the CPU type, not on that
/// of threads.
class Trainer {
 public:
  /// base_output [outputs, hidden]: the base's output rows of the draft vocabulary. Everything that
  /// is passed by reference, and base_output, must outlive the trainer. Throws ConfigError naming
  /// an option that is out of bounds.
  Trainer(const DrafterConfig& config, const TrainingOptions& options, ConstMatrix base_output,
          TeacherData& data, parallel::Communicator& group, kernels::ThreadPool& pool);

  /// Before the first step: goes out from the weights of a drafter of the same config instead of
  /// the seed's. Throws what `weights` throws.
  void start_from(const WeightSource& weights) { parameters_.load(weights); }

  /// One minibatch, one update; none if all of its tokens are masked. Throws FatalError if loss or
  /// gradient are not finite.
  StepReport step();

  /// Steps until `until` are done, or until `progress`, which is called after each, has returned
  /// false on any rank.
  void run(std::uint64_t until, kernels::FunctionRef<bool(const StepReport&)> progress);

  /// See evaluate in evaluation.h.
  Evaluation evaluate();

  std::uint64_t steps_done() const { return steps_done_; }
  const TrainingOptions& options() const { return options_; }
  /// The length of the schedule, once the time that a step takes is known.
  void set_total_steps(std::uint64_t steps) { options_.rate.steps = steps; }
  const HeadParameters& parameters() const { return parameters_; }

  /// Writes weights, optimizer, schedule and data position: the same bytes on every rank. `target`
  /// names the stream in messages. Throws ConfigError if it fails.
  void save(std::ostream& stream, const std::string& target) const;

  struct Restored {
    bool same_arithmetic = true;  ///< goes on bit for bit
    std::string saved_with;       ///< what the bits depended on when the checkpoint was written
  };
  /// Every rank reads the same checkpoint, made with the same options (the schedule's length is the
  /// checkpoint's) and data. Throws ConfigError naming `source` and the first option that differs,
  /// or what is damaged; the trainer is then of no further use.
  Restored restore(std::istream& stream, const std::string& source);

  /// What the bits of the training depend on besides options and data.
  std::string arithmetic() const;

 private:
  // All options that decide the bits, one "name: value" a line.
  std::string description() const;
  void check_ranks_agree(const std::string& source);

  TrainingOptions options_;
  TeacherData& data_;
  kernels::ThreadPool& pool_;
  RankSums sums_;
  Gemm gemm_;
  HeadParameters parameters_;
  std::vector<float> gradient_values_;
  HeadTensors gradients_;
  std::unique_ptr<HeadNetwork> network_;
  AdamW optimizer_;
  TeacherRows batch_;
  std::uint64_t steps_done_ = 0;
};

}  // namespace paceline::drafter
