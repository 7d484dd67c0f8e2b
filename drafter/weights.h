#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/core/matrix_source.h"

namespace paceline::drafter {

/// Where a head's weights come from: a checkpoint's files, a trainer's memory.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  /// Matrix `name` ("rnn_w", "lm_head.0.linear") [n, k], in the format that it is to be computed
  /// in; this must outlive it. Throws ConfigError naming the source and the tensor if there is none
  /// of that shape, or if it holds a number that is not finite.
  virtual kernels::MatrixSource matrix(const std::string& name, std::int64_t n,
                                       std::int64_t k) const = 0;
  /// Vector `name` ("rnn_u.bias") [n]; throws like `matrix`.
  virtual std::vector<float> vector(const std::string& name, std::int64_t n) const = 0;
};

/// The base model's input embedding.
class TokenEmbedding {
 public:
  virtual ~TokenEmbedding() = default;
  /// out[m] = the row of tokens[m]. tokens [rows] and out [rows, hidden] are device memory; every
  /// rank makes the same calls with the same rows.
  virtual void forward(const std::int32_t* tokens, float* out, std::int64_t rows) = 0;
  /// Whether `forward` does nothing but call ops of the backend, so that it may repeat them.
  virtual bool stays_on_device() const { return false; }
};

}  // namespace paceline::drafter
