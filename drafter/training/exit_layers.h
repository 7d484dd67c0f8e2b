#pragma once

#include <vector>

#include "drafter/config.h"
#include "drafter/training/activation.h"
#include "drafter/training/gemm.h"
#include "drafter/training/parameters.h"
#include "kernels/core/thread_pool.h"

namespace paceline::drafter {

/// What stands between concat(hidden, state) and a head's logits; rows are independent:
///
///   x_0     = W_in concat(hidden, state) + b_in    (or the concat itself)
///   x_{l+1} = x_l + silu(W_l x_l + b_l)
///   logits  = W_out x_n
class ExitLayers {
 public:
  ExitLayers(const DrafterConfig& config, Gemm& gemm, kernels::ThreadPool& pool);

  /// Logits [rows, outputs] of joined [rows, 2 hidden], which must stay until `backward`.
  /// `output` [outputs, exit_dim] is the output matrix, trained or the base's.
  Matrix forward(const HeadTensors& head, ConstMatrix output, Matrix joined);

  /// Adds the gradients of everything above; `gradients.output` may be empty. Returns the gradient
  /// [rows, 2 hidden] of `joined`. Results are valid until the next call.
  Matrix backward(const HeadTensors& head, ConstMatrix output, Matrix d_logits,
                  HeadTensors& gradients);

 private:
  DrafterConfig config_;
  Gemm& gemm_;
  kernels::ThreadPool& pool_;
  Matrix joined_;
  std::vector<Activation> exits_;  // [rows, exit_dim]: x_0 ... x_n; x_0 unused without W_in
  std::vector<Activation> inner_;  // [rows, exit_dim]: W_l x_l + b_l
  Activation logits_, d_exit_, d_inner_, d_joined_;

  Matrix exit(std::size_t layer) const;
};

}  // namespace paceline::drafter
