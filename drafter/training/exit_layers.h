#pragma once

#include <vector>

#include "drafter/config.h"
#include "drafter/training/activation.h"
#include "drafter/training/gemm.h"
#include "drafter/training/parameters.h"
#include "kernels/core/thread_pool.h"

namespace paceline::drafter {

/// What stands between a head's input, ReDrafter's concat(hidden, state) or Medusa's hidden, and
/// its logits; rows are independent:
///
///   x_0     = W_in input + b_in    (or the input itself)
///   x_{l+1} = x_l + silu(W_l x_l + b_l)
///   logits  = W_out x_n
class ExitLayers {
 public:
  /// Of HeadTensors::exits number `index`.
  ExitLayers(const DrafterConfig& config, std::size_t index, Gemm& gemm, kernels::ThreadPool& pool);

  /// Logits [rows, outputs] of `input`, which must stay until `backward`. `output` [outputs,
  /// exit_dim] is the output matrix, trained or the base's.
  void forward(const HeadTensors& head, ConstMatrix output, Matrix input, Matrix logits);

  /// Adds the gradients of everything above; the output matrix's may be empty. Returns the gradient
  /// of the input, valid until the next call.
  Matrix backward(const HeadTensors& head, ConstMatrix output, ConstMatrix d_logits,
                  HeadTensors& gradients);

 private:
  DrafterConfig config_;
  std::size_t index_;
  Gemm& gemm_;
  kernels::ThreadPool& pool_;
  Matrix input_;
  std::vector<Activation> exits_;  // [rows, exit_dim]: x_0 ... x_n; x_0 unused without W_in
  std::vector<Activation> inner_;  // [rows, exit_dim]: W_l x_l + b_l
  Activation d_exit_, d_inner_, d_input_;

  Matrix exit(std::size_t layer) const;
};

}  // namespace paceline::drafter
