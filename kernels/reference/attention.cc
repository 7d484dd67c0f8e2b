#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/core/attention_order.h"
#include "kernels/core/error.h"
#include "kernels/core/exact_math.h"
#include "kernels/core/flushed_fma.h"
#include "kernels/core/half.h"
#include "kernels/core/kv_address.h"
#include "kernels/core/lanes.h"
#include "kernels/reference/ops.h"

// The exact order of AttentionMath::kFp32, for one row and one query head; that of kBf16 stands in
// kernels/params.h.
//
// The visible positions 0 ... p are cut into segments [0, 256), [256, 512), ..., a segment into
// blocks of 16 positions, aligned likewise; only the last block can be short. In a segment, from
// m = -inf, l = 0, o = 0, each block does
//   s_j = (dot(q, k_j) * x_j) * scale  the dot in 16 lanes, for each visible j
//   m'  = max(m, max over j of s_j)    a NaN s_j is passed over here; p_j carries it on
//   c   = exp(m - m'), p_j = exp(s_j - m')
//   l   = fma(l, c, sum of p_j)        16 lanes, p_j in lane j mod 16, +0 where invisible
//   o   = o * c, then o = fma(p_j * y_j, v_j, o) for the visible j, ascending
//   m   = m'
// where k_j and v_j are the elements as stored, widened to fp32, and x_j and y_j the scales of key
// and value; those formats that have none have 1.
// The first segment's (M, L, O) = (m, l, o); each further one is merged by
//   M' = max(M, m), a = exp(M - M'), b = exp(m - M')
//   L  = fma(L, a, l * b), O = fma(O, a, o * b), M = M'
// and at the end out = O / L.

namespace paceline::kernels::reference {
namespace {

struct State {
  float max = -std::numeric_limits<float>::infinity();
  float sum = 0;
  std::vector<float> out;
};

/// The elements as stored; returns their scale.
float load(const KvPool& pool, std::int64_t offset, std::int32_t slot, std::vector<float>& out) {
  switch (pool.format) {
    case KvFormat::kFp32:
      std::copy_n(reinterpret_cast<const float*>(pool.data) + offset, pool.head_dim, out.begin());
      return 1;
    case KvFormat::kBf16: {
      const auto* halves = reinterpret_cast<const std::uint16_t*>(pool.data) + offset;
      std::transform(halves, halves + pool.head_dim, out.begin(), bf16_to_fp32);
      return 1;
    }
    case KvFormat::kInt8:
      std::copy_n(reinterpret_cast<const std::int8_t*>(pool.data) + offset, pool.head_dim,
                  out.begin());
      return kv_scale(pool, offset, slot);
  }
  throw FatalError("unknown key/value format {}", static_cast<int>(pool.format));
}

class RowHead {
 public:
  RowHead(const AttentionParams& params, std::int64_t row, int head)
      : params_(params),
        at_(params.rows_at[row]),
        q_(params.qkv + row * params.qkv_stride + head * params.kv.head_dim),
        kv_head_(params.kv_head[head]),
        row_(params.kv.head_dim),
        rounded_q_(q_, q_ + params.kv.head_dim) {
    for (float& element : rounded_q_) element = bf16_to_fp32(fp32_to_bf16(element));
  }

  void attend(float* out) {
    State total = segment(0);
    for (std::int32_t begin = kAttentionSegment; begin <= at_.position;
         begin += kAttentionSegment) {
      const State next = segment(begin);
      const float max = next.max > total.max ? next.max : total.max;
      const float a = exact::exp(total.max - max);
      const float b = exact::exp(next.max - max);
      total.sum = std::fma(total.sum, a, next.sum * b);
      for (std::size_t d = 0; d < total.out.size(); ++d) {
        total.out[d] = std::fma(total.out[d], a, next.out[d] * b);
      }
      total.max = max;
    }
    const float zero = is_bf16() ? 0.0f : -0.0f;  // adding -0 changes nothing
    for (std::size_t d = 0; d < total.out.size(); ++d) out[d] = total.out[d] / total.sum + zero;
  }

 private:
  bool is_bf16() const { return params_.math == AttentionMath::kBf16; }

  State segment(std::int32_t begin) {
    State state;
    state.out.resize(params_.kv.head_dim);
    const std::int32_t end = std::min(begin + kAttentionSegment, at_.position + 1);
    const int block = is_bf16() ? kTensorAttentionBlock : kAttentionBlock;
    for (std::int32_t t = begin; t < end; t += block) {
      const int visible = std::min(block, end - t);
      if (is_bf16()) {
        add_block_in_bf16(t, visible, state);
      } else {
        add_block(t, visible, state);
      }
    }
    return state;
  }

  void add_block(std::int32_t begin, int visible, State& state) {
    std::array<float, kAttentionBlock> scores;
    float max = state.max;
    for (int j = 0; j < visible; ++j) {
      const float key_scale = read(KvPart::kKey, begin + j);
      scores[j] = dot_lanes(q_, row_.data(), params_.kv.head_dim) * key_scale * params_.scale;
      max = scores[j] > max ? scores[j] : max;
    }
    float lanes[kLanes] = {};
    for (int j = 0; j < visible; ++j) lanes[j] = scores[j] = exact::exp(scores[j] - max);
    const float rescale = exact::exp(state.max - max);
    state.sum = std::fma(state.sum, rescale, sum_lanes(lanes));
    for (float& element : state.out) element *= rescale;
    for (int j = 0; j < visible; ++j) {
      const float weight = scores[j] * read(KvPart::kValue, begin + j);
      for (std::size_t d = 0; d < row_.size(); ++d) {
        state.out[d] = std::fma(weight, row_[d], state.out[d]);
      }
    }
    state.max = max;
  }

  void add_block_in_bf16(std::int32_t begin, int visible, State& state) {
    std::array<float, kTensorAttentionBlock> weights = {};
    float max = state.max;
    for (int j = 0; j < visible; ++j) {
      const float key_scale = read(KvPart::kKey, begin + j);
      float dot = 0;
      for (int k = 0; k < params_.kv.head_dim; ++k) {
        const int d = attention_dim(params_.kv.head_dim, k);
        dot = flushed_fma(rounded_q_[d], row_[d], dot);
      }
      weights[j] = dot * key_scale * params_.scale;
      max = weights[j] > max ? weights[j] : max;
    }
    float lanes[4] = {};
    for (int j = 0; j < visible; ++j) {
      weights[j] = exact::exp(weights[j] - max);
      lanes[j % 8 / 2] += weights[j];
    }
    const float rescale = exact::exp(state.max - max);
    state.sum = std::fma(state.sum, rescale, (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]));
    for (float& element : state.out) element *= rescale;
    for (int j = 0; j < kTensorAttentionBlock; ++j) {
      if (j < visible) {
        weights[j] *= read(KvPart::kValue, begin + j);
      } else {
        std::ranges::fill(row_, 0.0f);
      }
      const float weight = bf16_to_fp32(fp32_to_bf16(weights[j]));
      for (std::size_t d = 0; d < row_.size(); ++d) {
        state.out[d] = flushed_fma(weight, row_[d], state.out[d]);
      }
    }
    state.max = max;
  }

  /// Leaves the elements in row_, returns their scale.
  float read(KvPart part, std::int32_t position) {
    const std::int32_t slot = slot_of_position(at_, params_.ancestors, position);
    const std::int64_t offset = kv_offset(params_.kv, params_.page_table, at_.sequence, slot,
                                          params_.layer, part, kv_head_);
    return load(params_.kv, offset, slot, row_);
  }

  const AttentionParams& params_;
  const RowPlace& at_;
  const float* q_;
  int kv_head_;
  std::vector<float> row_;  // the key or value read last
  std::vector<float> rounded_q_;
};

}  // namespace

void attention(const AttentionParams& params) {
  static_assert(kAttentionBlock == kLanes);
  if (params.math == AttentionMath::kBf16) {
    check(
        params.kv.format != KvFormat::kFp32 && params.kv.head_dim % kTensorInputs == 0,
        "attention in bf16 over a {} cache with heads of {} elements, expected bf16 or int8 and a "
        "multiple of {}",
        format_name(params.kv.format), params.kv.head_dim, kTensorInputs);
  }
  for (std::int64_t row = 0; row < params.rows; ++row) {
    for (int head = 0; head < params.num_heads; ++head) {
      RowHead(params, row, head)
          .attend(params.out + (row * params.num_heads + head) * params.kv.head_dim);
    }
  }
}

}  // namespace paceline::kernels::reference
