#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace paceline::kernels {

/// out[m, n] = sum over k of in[m, k] * weight[n, k] by oneDNN on one thread, weights [n, k] fp32
/// (dnnl_sgemm), or rounded to bf16 and laid out as oneDNN likes; then activations are rounded to
/// bf16 in each call, as in ours. What is returned may be called until `in`, `out` or the weights
/// go.
std::function<void()> library_fp32(const std::vector<float>& weight, std::int64_t n, std::int64_t k,
                                   const float* in, std::int64_t rows, float* out);
std::function<void()> library_bf16(const std::vector<float>& weight, std::int64_t n, std::int64_t k,
                                   const float* in, std::int64_t rows, float* out);

}  // namespace paceline::kernels
