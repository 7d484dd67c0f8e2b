#pragma once

#include <cstdint>
#include <string_view>

#include "kernels/params.h"
#include "runtime/model/weights.h"

namespace paceline::runtime {

/// What `--attention` (auto, fp32, bf16) comes to on a backend (Backend::numerics). auto is bf16 on
/// CUDA where weights of bf16, fp16 or fp8 make its bits differ from the CPU's anyway and attention
/// in bf16 is possible; fp32 else. Throws ConfigError where bf16 is asked for and is not possible:
/// on the CPU, over a cache of fp32, with a head_dim that is no multiple of 16 up to 256.
kernels::AttentionMath choose_attention(std::string_view name, std::string_view backend,
                                        const WeightFormats& weights, kernels::KvFormat kv,
                                        std::int64_t head_dim);

}  // namespace paceline::runtime
