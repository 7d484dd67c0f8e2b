#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "drafter/training/byte_stream.h"
#include "drafter/training/parameters.h"
#include "kernels/core/thread_pool.h"

namespace paceline::drafter {

/// AdamW (Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization").
struct AdamWOptions {
  float beta1 = 0.9f;
  float beta2 = 0.95f;
  float epsilon = 1e-8f;
  float weight_decay = 0.01f;      ///< of matrices; biases do not decay
  float max_gradient_norm = 1.0f;  ///< gradients are scaled down to this norm; 0: never
  bool operator==(const AdamWOptions&) const = default;
};

/// Linear from 0 over `warmup_steps`, then half a cosine down to final_share * peak at `steps`.
struct LearningRate {
  float peak = 2e-3f;
  float final_share = 0.0f;
  std::uint64_t warmup_steps = 50;
  std::uint64_t steps = 1000;
  /// Of update number `step`, the first being 0; after the last, the final one.
  float at(std::uint64_t step) const;
};

/// The optimizer of one flat parameter buffer. The same bits whatever the pool's number of threads.
class AdamW {
 public:
  /// The pool must outlive it. Throws ConfigError naming an option that is out of bounds.
  AdamW(const AdamWOptions& options, const HeadLayout& layout, kernels::ThreadPool& pool);

  /// One update with the gradient `scale` * gradients. Returns that gradient's norm before
  /// clipping; if it is not finite nothing was updated.
  double update(std::span<const float> gradients, double scale, float learning_rate,
                std::span<float> parameters);

  std::uint64_t updates() const { return updates_; }
  void save(ByteWriter& to) const;
  /// Throws ConfigError as ByteReader does.
  void restore(ByteReader& from);

 private:
  AdamWOptions options_;
  HeadLayout layout_;
  kernels::ThreadPool& pool_;
  std::uint64_t updates_ = 0;
  std::vector<float> mean_;      // of the gradient, decaying with beta1
  std::vector<float> variance_;  // of the gradient, uncentred, decaying with beta2
};

}  // namespace paceline::drafter
