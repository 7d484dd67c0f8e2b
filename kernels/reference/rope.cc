#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/core/exact_math.h"
#include "kernels/core/half.h"
#include "kernels/core/kv_address.h"
#include "kernels/core/quantize.h"
#include "kernels/reference/ops.h"

namespace paceline::kernels::reference {
namespace {

void rotate(float* head, const float* cos, const float* sin, int half) {
  for (int i = 0; i < half; ++i) {
    const float x1 = head[i];
    const float x2 = head[i + half];
    head[i] = std::fma(x1, cos[i], -(x2 * sin[i]));
    head[i + half] = std::fma(x2, cos[i], x1 * sin[i]);
  }
}

void store(const KvPool& pool, std::int64_t offset, std::int32_t slot, const float* head) {
  switch (pool.format) {
    case KvFormat::kFp32:
      std::copy_n(head, pool.head_dim, reinterpret_cast<float*>(pool.data) + offset);
      return;
    case KvFormat::kBf16:
      std::transform(head, head + pool.head_dim,
                     reinterpret_cast<std::uint16_t*>(pool.data) + offset, fp32_to_bf16);
      return;
    case KvFormat::kInt8: {
      std::int32_t sum = 0;  // nobody asks for it
      kv_scale(pool, offset, slot) =
          quantize_group(head, pool.head_dim, pool.head_dim,
                         reinterpret_cast<std::int8_t*>(pool.data) + offset, sum);
      return;
    }
  }
}

}  // namespace

void rope_table(const RopeTableParams& params) {
  const int half = params.head_dim / 2;
  for (std::int64_t row = 0; row < params.rows; ++row) {
    const float position = static_cast<float>(params.positions[row]);
    for (int i = 0; i < half; ++i) {
      const auto [sine, cosine] = exact::sin_cos(position * params.inv_freq[i]);
      params.cos[row * half + i] = static_cast<float>(cosine);
      params.sin[row * half + i] = static_cast<float>(sine);
    }
  }
}

void rope_append(const RopeAppendParams& params) {
  const KvPool& kv = params.kv;
  const int heads = params.num_heads + 2 * kv.num_heads;
  for (std::int64_t row = 0; row < params.rows; ++row) {
    float* qkv = params.qkv + row * heads * kv.head_dim;
    const RowPlace& at = params.rows_at[row];
    const float* cos = params.cos + row * (kv.head_dim / 2);
    const float* sin = params.sin + row * (kv.head_dim / 2);
    for (int h = 0; h < heads; ++h) {
      float* head = qkv + h * kv.head_dim;
      if (params.bias) {
        for (int d = 0; d < kv.head_dim; ++d) head[d] += params.bias[h * kv.head_dim + d];
      }
      const bool is_value = h >= params.num_heads + kv.num_heads;
      if (!is_value) rotate(head, cos, sin, kv.head_dim / 2);
      if (h < params.num_heads) continue;
      const int kv_head = (h - params.num_heads) % kv.num_heads;
      store(kv,
            kv_offset(kv, params.page_table, at.sequence, at.slot, params.layer,
                      is_value ? KvPart::kValue : KvPart::kKey, kv_head),
            at.slot, head);
    }
  }
}

}  // namespace paceline::kernels::reference
