#pragma once

#include <cstdint>
#include <vector>

#include "drafter/config.h"
#include "drafter/head_layers.h"
#include "drafter/weights.h"
#include "kernels/api.h"

namespace paceline::drafter {

/// The network of Medusa's heads, whole on every rank. Head i guesses the token of depth i + 1:
///
///   x_0     = hidden
///   x_{j+1} = x_j + silu(W_ij x_j + b_ij)
///   logits  = W_i x_n
///
/// Rows are independent. Pointers are the backend's device memory.
class MedusaHead {
 public:
  MedusaHead(const DrafterConfig& config, const WeightSource& weights, kernels::Backend& backend);

  /// Logits [rows, num_outputs] of head `head` from the base's hidden states hidden[hidden_row[r]];
  /// valid until the next call.
  const float* logits(std::int64_t head, const float* hidden, const std::int32_t* hidden_row,
                      std::int64_t rows);

  const DrafterConfig& config() const { return config_; }

 private:
  DrafterConfig config_;
  kernels::Backend& backend_;
  std::vector<ResidualBlocks> blocks_;  // of each head
  std::vector<HeadLinear> outputs_;     // of each head; one for all if it is the base's
  kernels::Buffer exit_, inner_;        // [M, hidden]
  kernels::Buffer logits_;              // [M, outputs]
};

}  // namespace paceline::drafter
