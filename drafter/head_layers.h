#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "drafter/config.h"
#include "drafter/weights.h"
#include "kernels/api.h"

namespace paceline::drafter {

/// y = W x, and perhaps a bias b for whoever adds it: a layer of a head, whole on every rank. Rows
/// are independent.
class HeadLinear {
 public:
  /// `name`.weight [n, k] and, if there is one, `name`.bias [n]. The backend must outlive it.
  /// Throws what `weights` throws.
  HeadLinear(const HeadLinearShape& shape, const WeightSource& weights, kernels::Backend& backend);

  /// out [rows, n] = W in [rows, k]
  void multiply(const float* in, float* out, std::int64_t rows) const;
  /// [n]; null if there is none.
  const float* bias() const { return bias_.as<float>(); }

 private:
  kernels::Backend& backend_;
  std::unique_ptr<kernels::PackedMatrix> weight_;
  kernels::Buffer bias_;
};

/// x_{i+1} = x_i + silu(W_i x_i + b_i), for the residual blocks of one head.
class ResidualBlocks {
 public:
  ResidualBlocks(const DrafterConfig& config, std::int64_t head, const WeightSource& weights,
                 kernels::Backend& backend);

  /// x [rows, exit_dim] from x_0 to x_n; `inner` is as much memory to work in.
  void forward(float* x, float* inner, std::int64_t rows) const;

 private:
  std::int64_t width_;
  kernels::Backend& backend_;
  std::vector<HeadLinear> blocks_;
};

}  // namespace paceline::drafter
