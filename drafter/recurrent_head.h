#pragma once

#include <cstdint>
#include <optional>

#include "drafter/config.h"
#include "drafter/head_layers.h"
#include "drafter/weights.h"
#include "kernels/api.h"

namespace paceline::drafter {

/// The network of a ReDrafter head, whole on every rank:
///
///   state_0 = 0
///   state_t = silu(W_w E(token_t) + W_u state_{t-1} + b_u)       (rnn)
///   state_t = E(token_t) + state_{t-1}                           (not rnn)
///   x_0     = concat(hidden, state_t)                            (exit_dim == 2 hidden_size)
///   x_0     = W_in concat(hidden, state_t) + b_in                (else)
///   x_{i+1} = x_i + silu(W_i x_i + b_i)
///   logits  = W_out x_n
///
/// Rows are independent. Pointers are the backend's device memory.
class RecurrentHead {
 public:
  RecurrentHead(const DrafterConfig& config, const WeightSource& weights,
                kernels::Backend& backend);

  /// state [rows, hidden] from embeddings [rows, hidden] and the states before; `previous` null:
  /// state_0. `state` is neither of them.
  void advance(const float* embedded, const float* previous, float* state, std::int64_t rows);

  /// Logits [rows, num_outputs] after each state, of the base's hidden states
  /// hidden[hidden_row[r]]; valid until the next call.
  const float* logits(const float* hidden, const std::int32_t* hidden_row, const float* state,
                      std::int64_t rows);

  const DrafterConfig& config() const { return config_; }

 private:
  DrafterConfig config_;
  kernels::Backend& backend_;
  std::optional<HeadLinear> rnn_w_, rnn_u_;
  std::optional<HeadLinear> input_;  // only if exit_dim is not 2 hidden_size
  ResidualBlocks blocks_;
  HeadLinear output_;
  kernels::Buffer from_token_, from_state_;  // [M, hidden]
  kernels::Buffer joined_;                   // [M, 2 hidden]
  kernels::Buffer exit_, inner_;             // [M, exit_dim]
  kernels::Buffer logits_;                   // [M, outputs]
};

}  // namespace paceline::drafter
