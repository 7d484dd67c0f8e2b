#pragma once

#include <cstdint>
#include <string_view>

#include "runtime/files/safetensors.h"
#include "runtime/model/config.h"

namespace paceline::runtime {

/// How the weights of one linear layer (or of the embedding) stand in a checkpoint.
enum class LinearFormat {
  kF32,
  kF16,
  kBF16,
  kFp8,   ///< w = scale * q: OCP E4M3
  kInt8,  ///< w = scale * q: GGUF's Q8_0
  kInt4,  ///< w = scale * q + minimum: GGUF's Q4_1
};

std::string_view linear_format_name(LinearFormat format);

/// The tensors of a linear layer y = W x + b with W [n, k], found and checked. The pointers are the
/// checkpoint's.
struct StoredLinear {
  LinearFormat format = LinearFormat::kF32;
  /// Floats: `X.weight` [n, k]. kFp8: `X.weight` F8_E4M3 [n, k]. kInt8: `X.qweight` I8 [n, k].
  /// kInt4: `X.qweight` U8 [n, k/2], element 2i in the low half of byte i and 2i+1 in the high
  /// half.
  const StoredTensor* weight = nullptr;
  /// kFp8: `X.weight_scale`, floats: one, or [n] or [n, 1]. kInt8, kInt4: `X.scales` F16 [n, k/32]
  const StoredTensor* scales = nullptr;
  const StoredTensor* minimums = nullptr;  ///< kInt4: `X.minimums` F16 [n, k/32]
};

/// Finds linear `name` ("model.layers.0.mlp.up_proj") with weights [n, k] in any of its layouts;
/// fp8 and the integers only if the config announces them. Throws ConfigError naming the tensor,
/// what was expected and what is there.
StoredLinear stored_linear(const Checkpoint& checkpoint, const ModelConfig& config,
                           std::string_view name, std::int64_t n, std::int64_t k);

/// Finds a vector of floats (a norm's weight, a bias), F32, F16 or BF16 [n].
/// Throws ConfigError naming the tensor, what was expected and what is there.
const StoredTensor& stored_vector(const Checkpoint& checkpoint, std::string_view name,
                                  std::int64_t n);

/// Checks before any weight is read that the checkpoint holds every tensor that the model needs, in
/// the right shape, and none that would change its answers if it were ignored (a bias that the
/// config does not announce). Throws ConfigError naming the tensor.
void check_checkpoint(const Checkpoint& checkpoint, const ModelConfig& config);

}  // namespace paceline::runtime
