// The element-wise ops and norms of one range of rows. Included once per instruction set.

#if defined(PACELINE_KERNELS_CPU_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PACELINE_KERNELS_CPU_ROWS_INL_H_
#undef PACELINE_KERNELS_CPU_ROWS_INL_H_
#else
#define PACELINE_KERNELS_CPU_ROWS_INL_H_
#endif

#include <cmath>

#include "hwy/highway.h"
#include "kernels/core/half.h"
#include "kernels/core/kv_address.h"
#include "kernels/core/quantize.h"
#include "kernels/core/reduction.h"
#include "kernels/cpu/exact_math-inl.h"
#include "kernels/cpu/lanes-inl.h"
#include "kernels/cpu/select-inl.h"
#include "kernels/params.h"

HWY_BEFORE_NAMESPACE();
namespace paceline::kernels::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Elements [range.begin, range.end). The caller has checked the merges.
void sum_partials(const SumPartialsParams& params, IndexRange range) {
  FloatVec stack[kMaxReductionDepth];
  for (std::int64_t i = range.begin; i < range.end; i += kWidth) {
    int depth = 0;
    const float* partial = params.partials;
    for (const int merges : params.merges) {
      stack[depth++] = load_part(partial, i, range.end);
      for (int merge = 0; merge < merges; ++merge, --depth) {
        stack[depth - 2] = hn::Add(stack[depth - 2], stack[depth - 1]);
      }
      partial += params.size;
    }
    const FloatVec sum =
        params.residual ? hn::Add(load_part(params.residual, i, range.end), stack[0]) : stack[0];
    store_part(sum, params.out, i, range.end);
  }
}

void rms_norm(const RmsNormParams& params, IndexRange rows) {
  const FloatTag d;
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    const float* in = params.in + row * params.width;
    float* out = params.out + row * params.width;
    const float mean = dot(in, in, params.width) / static_cast<float>(params.width);
    const auto scale = hn::Set(d, 1.0f / std::sqrt(mean + params.eps));
    for (std::int64_t i = 0; i < params.width; i += kWidth) {
      const auto scaled = hn::Mul(load_part(in, i, params.width), scale);
      store_part(hn::Mul(scaled, load_part(params.weight, i, params.width)), out, i, params.width);
    }
  }
}

void silu_mul(const float* gates, const float* ups, float* out, std::int64_t count) {
  const auto one = hn::Set(FloatTag(), 1.0f);
  for (std::int64_t i = 0; i < count; i += kWidth) {
    const auto gate = load_part(gates, i, count);
    const auto silu = hn::Div(gate, hn::Add(one, exp(hn::Neg(gate))));
    store_part(hn::Mul(silu, load_part(ups, i, count)), out, i, count);
  }
}

void activate(const ActivateParams& params, IndexRange rows) {
  const FloatTag d;
  const auto one = hn::Set(d, 1.0f);
  const auto row_of = [&](const float* data, std::int64_t row) {
    return data ? data + row * params.width : nullptr;
  };
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    const float* in = row_of(params.in, row);
    const float* addend = row_of(params.addend, row);
    const float* residual = row_of(params.residual, row);
    float* out = params.out + row * params.width;
    for (std::int64_t i = 0; i < params.width; i += kWidth) {
      auto y = load_part(in, i, params.width);
      if (addend) y = hn::Add(y, load_part(addend, i, params.width));
      if (params.bias) y = hn::Add(y, load_part(params.bias, i, params.width));
      if (params.activation == Activation::kSilu) y = hn::Div(y, hn::Add(one, exp(hn::Neg(y))));
      if (residual) y = hn::Add(load_part(residual, i, params.width), y);
      store_part(y, out, i, params.width);
    }
  }
}

void rope_table(const RopeTableParams& params, IndexRange rows) {
  const int half = params.head_dim / 2;
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    const float position = static_cast<float>(params.positions[row]);
    for (int i = 0; i < half; ++i) {
      const exact::SinCos at = exact::sin_cos(position * params.inv_freq[i]);
      params.cos[row * half + i] = static_cast<float>(at.cos);
      params.sin[row * half + i] = static_cast<float>(at.sin);
    }
  }
}

/// head += bias.
HWY_INLINE void add_bias(float* head, const float* bias, int size) {
  for (int i = 0; i < size; i += kWidth) {
    store_part(hn::Add(load_part(head, i, size), load_part(bias, i, size)), head, i, size);
  }
}

HWY_INLINE void rotate(float* head, const float* cos, const float* sin, int half) {
  for (int i = 0; i < half; i += kWidth) {
    const auto x1 = load_part(head, i, half);
    const auto x2 = load_part(head + half, i, half);
    const auto c = load_part(cos, i, half);
    const auto s = load_part(sin, i, half);
    store_part(hn::MulAdd(x1, c, hn::Neg(hn::Mul(x2, s))), head, i, half);
    store_part(hn::MulAdd(x2, c, hn::Mul(x1, s)), head + half, i, half);
  }
}

/// fp32_to_bf16 of each element.
HWY_INLINE void store_bf16(const float* from, std::uint16_t* to, int size) {
  const hn::RebindToUnsigned<FloatTag> du;
  const hn::Rebind<std::uint16_t, FloatTag> du16;
  const FloatTag d;
  int i = 0;
  for (; i + kWidth <= size; i += kWidth) {
    const auto value = hn::LoadU(d, from + i);
    const auto bits = hn::BitCast(du, value);
    const auto last = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
    const auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(du, 0x7fff)), last));
    const auto quiet = hn::Or(hn::ShiftRight<16>(bits), hn::Set(du, 0x40));
    const auto is_nan = hn::RebindMask(du, hn::IsNaN(value));
    hn::StoreU(hn::TruncateTo(du16, hn::IfThenElse(is_nan, quiet, rounded)), du16, to + i);
  }
  for (; i < size; ++i) to[i] = fp32_to_bf16(from[i]);
}

/// quantize_group of all elements as one group; returns the scale.
HWY_INLINE float store_int8(const float* from, std::int8_t* to, int size) {
  const FloatTag d;
  const hn::RebindToSigned<FloatTag> di;
  const hn::Rebind<std::int8_t, FloatTag> di8;
  auto largest = hn::Zero(di);
  for (int i = 0; i < size; i += kWidth) {
    const auto bits = hn::BitCast(di, load_part(from, i, size));
    largest = hn::Max(largest, hn::And(bits, hn::Set(di, 0x7fffffff)));
  }
  const std::int32_t magnitude = hn::GetLane(hn::MaxOfLanes(di, largest));
  const GroupScale scale = group_scale(static_cast<std::uint32_t>(magnitude));
  int i = 0;
  for (; scale.inverse != 0 && i + kWidth <= size; i += kWidth) {
    const auto scaled = hn::Mul(hn::LoadU(d, from + i), hn::Set(d, scale.inverse));
    hn::StoreU(hn::DemoteTo(di8, hn::NearestInt(scaled)), di8, to + i);
  }
  for (; i < size; ++i) to[i] = quantize_element(from[i], scale);
  return scale.scale;
}

/// Rounds a key or value to the pool's format. `offset` as kv_offset gives it.
HWY_INLINE void store_head(const KvPool& kv, std::int64_t offset, std::int32_t slot,
                           const float* head) {
  switch (kv.format) {
    case KvFormat::kFp32:
      std::copy_n(head, kv.head_dim, reinterpret_cast<float*>(kv.data) + offset);
      return;
    case KvFormat::kBf16:
      store_bf16(head, reinterpret_cast<std::uint16_t*>(kv.data) + offset, kv.head_dim);
      return;
    case KvFormat::kInt8:
      kv_scale(kv, offset, slot) =
          store_int8(head, reinterpret_cast<std::int8_t*>(kv.data) + offset, kv.head_dim);
      return;
  }
}

void rope_append(const RopeAppendParams& params, IndexRange rows) {
  const KvPool& kv = params.kv;
  const int heads = params.num_heads + 2 * kv.num_heads;
  const int half = kv.head_dim / 2;
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    float* qkv = params.qkv + row * heads * kv.head_dim;
    if (params.bias) add_bias(qkv, params.bias, heads * kv.head_dim);
    for (int h = 0; h < params.num_heads + kv.num_heads; ++h) {
      rotate(qkv + h * kv.head_dim, params.cos + row * half, params.sin + row * half, half);
    }
    const RowPlace& at = params.rows_at[row];
    for (int h = 0; h < 2 * kv.num_heads; ++h) {
      const float* head = qkv + (params.num_heads + h) * kv.head_dim;
      const std::int64_t offset =
          kv_offset(kv, params.page_table, at.sequence, at.slot, params.layer,
                    h < kv.num_heads ? KvPart::kKey : KvPart::kValue, h % kv.num_heads);
      store_head(kv, offset, at.slot, head);
    }
  }
}

void token_log_probs(const TokenLogProbsParams& params, IndexRange rows) {
  const DoubleTag d;
  const hn::Rebind<float, DoubleTag> df;
  constexpr int kDoubles = static_cast<int>(hn::MaxLanes(DoubleTag()));
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    const float* logits = params.logits + row * params.vocab;
    float max;
    if (!largest_finite(logits, params.vocab, max)) {
      params.log_probs[row] = std::numeric_limits<double>::quiet_NaN();
      continue;
    }
    const double max_double = max;
    DoubleVec sums[kLanes / kDoubles];
    for (DoubleVec& sum : sums) sum = hn::Zero(d);
    std::int64_t id = 0;
    for (; id + kLanes <= params.vocab; id += kLanes) {
      for (int v = 0; v < kLanes / kDoubles; ++v) {
        const auto logit = hn::PromoteTo(d, hn::LoadU(df, logits + id + v * kDoubles));
        sums[v] = hn::Add(sums[v], exp(hn::Sub(logit, hn::Set(d, max_double))));
      }
    }
    double lanes[kLanes];
    for (int v = 0; v < kLanes / kDoubles; ++v) hn::StoreU(sums[v], d, lanes + v * kDoubles);
    for (; id < params.vocab; ++id) {
      lanes[id % kLanes] += exact::exp(static_cast<double>(logits[id]) - max_double);
    }
    params.log_probs[row] = (static_cast<double>(logits[params.targets[row]]) - max_double) -
                            exact::log(kernels::sum_lanes(lanes));
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace paceline::kernels::cpu
HWY_AFTER_NAMESPACE();

#endif
