#include "runtime/model/attention_math.h"

#include <fmt/format.h>

#include <string>

#include "kernels/core/attention_order.h"
#include "kernels/core/error.h"

namespace paceline::runtime {
namespace {

/// What stands in the way of attention in bf16; empty: nothing.
std::string obstacle_to_bf16(std::string_view backend, kernels::KvFormat kv,
                             std::int64_t head_dim) {
  if (!backend.starts_with("cuda")) {
    return "it is for a GPU's tensor cores (--device cuda), but this rank computes on the CPU";
  }
  if (kv == kernels::KvFormat::kFp32) {
    return "the key/value cache is fp32, expected bf16 or int8 (--kv-format)";
  }
  if (head_dim % kernels::kTensorInputs != 0 || head_dim > kernels::kMostTensorHeadDim) {
    return fmt::format("the model's heads have {} elements, expected a multiple of {} up to {}",
                       head_dim, kernels::kTensorInputs, kernels::kMostTensorHeadDim);
  }
  return {};
}

}  // namespace

kernels::AttentionMath choose_attention(std::string_view name, std::string_view backend,
                                        const WeightFormats& weights, kernels::KvFormat kv,
                                        std::int64_t head_dim) {
  using kernels::AttentionMath;
  using kernels::WeightFormat;
  if (name == "fp32") return AttentionMath::kFp32;
  const std::string obstacle = obstacle_to_bf16(backend, kv, head_dim);
  if (name == "bf16") {
    if (!obstacle.empty()) throw ConfigError("--attention bf16: {}", obstacle);
    return AttentionMath::kBf16;
  }
  const bool differs_anyway = weights.linear == WeightFormat::kBf16 ||
                              weights.linear == WeightFormat::kFp16 ||
                              weights.linear == WeightFormat::kFp8;
  return differs_anyway && obstacle.empty() ? AttentionMath::kBf16 : AttentionMath::kFp32;
}

}  // namespace paceline::runtime
