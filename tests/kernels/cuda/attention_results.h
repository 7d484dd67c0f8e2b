#pragma once

#include <gtest/gtest.h>
#include <test_device.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cuda/ops.h"
#include "kernels/reference/ops.h"
#include "tests/kernels/attention_step.h"

/// What the tests of the CUDA kernels' `attention` share.
namespace paceline::kernels {

using Floats = std::vector<float>;

inline int out_width(const AttentionStep& step) {
  return step.shape.num_heads * step.shape.head_dim;
}

/// Calls use(result) with each segment in a block of its own, and without.
template <typename Use>
void with_both_splits(AttentionStep& step, const Use& use) {
  constexpr int kSegments = 4;
  Floats out;
  const AttentionParams params = step.attention_params(out);
  ASSERT_LE(params.page_table.stride * params.kv.page_size, kSegments * kAttentionSegment);
  Floats workspace(params.rows * params.num_heads * kSegments * (params.kv.head_dim + 2),
                   std::numeric_limits<float>::quiet_NaN());
  for (float* states : {workspace.data(), static_cast<float*>(nullptr)}) {
    SCOPED_TRACE(states != nullptr ? "a block a segment" : "a block for all segments");
    cuda::attention(step.attention_params(out), states, nullptr);
    use(out);
  }
}

/// Softmax in double of the magnitudes of values: what the rounding of weights is measured by.
inline Floats attended_magnitudes(const AttentionStep& step) {
  const int dim = step.shape.head_dim;
  Floats magnitudes;
  for (std::size_t row = 0; row < step.rows_at.size(); ++row) {
    const RowPlace& at = step.rows_at[row];
    for (int h = 0; h < step.shape.num_heads; ++h) {
      const float* q = step.qkv.data() + row * step.width() + h * dim;
      std::vector<double> sums(dim);
      double sum = 0;
      for (int t = 0; t <= at.position; ++t) {
        double dot = 0;
        for (int d = 0; d < dim; ++d) {
          dot += q[d] * step.element(KvPart::kKey, at, t, step.kv_head[h], d);
        }
        const double weight = std::exp(dot / std::sqrt(dim));
        sum += weight;
        for (int d = 0; d < dim; ++d) {
          const double value = step.element(KvPart::kValue, at, t, step.kv_head[h], d);
          sums[d] += weight * std::fabs(value);
        }
      }
      for (const double of : sums) magnitudes.push_back(static_cast<float>(of / sum));
    }
  }
  return magnitudes;
}

/// The reference's result, where tensor cores multiply on a GPU within the bound of docs/cuda.md.
inline void expect_reference_attention(AttentionStep& step) {
  Floats expected;
  reference::attention(step.attention_params(expected));
  in_every_order([&] {
    with_both_splits(step, [&](const Floats& out) {
      if (!kOnGpu || step.shape.math == AttentionMath::kFp32) {
        expect_same_bits(out, expected);
        return;
      }
      const Floats magnitudes = attended_magnitudes(step);
      ASSERT_EQ(out.size(), expected.size());
      for (std::size_t i = 0; i < out.size(); ++i) {
        ASSERT_EQ(std::isfinite(out[i]), std::isfinite(expected[i])) << "element " << i;
        if (!std::isfinite(expected[i])) continue;
        ASSERT_LE(std::fabs(out[i] - expected[i]), 0x1p-6f * magnitudes[i]) << "element " << i;
      }
    });
  });
}

}  // namespace paceline::kernels
