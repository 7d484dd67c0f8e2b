#pragma once

#include <cstdint>
#include <span>

#include "drafter/config.h"
#include "drafter/training/activation.h"
#include "drafter/training/gemm.h"
#include "drafter/training/parameters.h"
#include "kernels/core/thread_pool.h"

namespace paceline::drafter {

/// The tokens that a head's recurrence reads.
struct RecurrenceInputs {
  Matrix embeddings;  ///< [tokens, hidden]: of the distinct ones
  /// [depth, positions]: which of them is read at each step, from each position.
  std::span<const std::int32_t> token;
  std::int64_t positions = 0;
};

/// The states of a ReDrafter head, from every position of a minibatch at once:
///
///   state_0 = 0
///   state_i = silu(W_w E(token_i) + W_u state_{i-1} + b_u)    (rnn)
///   state_i = E(token_i) + state_{i-1}                        (not rnn)
///
/// Matrices of states are [depth * positions, hidden]: first those after the first step.
class Recurrence {
 public:
  Recurrence(const DrafterConfig& config, Gemm& gemm, kernels::ThreadPool& pool)
      : config_(config), gemm_(gemm), pool_(pool) {}

  /// The states; valid until the next call.
  Matrix forward(const HeadTensors& head, const RecurrenceInputs& inputs);

  /// Adds the gradients of rnn_u and rnn_w; `d_states`, the gradient of the states that `forward`
  /// gave, is overwritten. `inputs` are forward's.
  void backward(const HeadTensors& head, const RecurrenceInputs& inputs, Matrix d_states,
                HeadTensors& gradients);

 private:
  DrafterConfig config_;
  Gemm& gemm_;
  kernels::ThreadPool& pool_;
  Activation from_token_, d_from_token_;  // [tokens, hidden]: W_w E(token)
  Activation before_, states_;            // [depth * positions, hidden]: silu's argument and value
};

}  // namespace paceline::drafter
