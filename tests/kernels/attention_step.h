#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/core/half.h"
#include "kernels/core/kv_address.h"
#include "kernels/reference/ops.h"
#include "tests/kernels/every_cpu.h"

namespace paceline::kernels {

/// Heads and cache of a layer.
struct AttentionShape {
  int num_heads = 3;
  int kv_heads = 1;
  int head_dim = 64;
  int page_size = 16;
  KvFormat format = KvFormat::kBf16;
  AttentionMath math = AttentionMath::kFp32;
};

/// A cache with its pages dealt out in a scrambled order, and a packed step.
struct AttentionStep {
  AttentionStep(const AttentionShape& of, int sequences, int positions) : shape(of) {
    const int pages_each = (positions + shape.page_size - 1) / shape.page_size;
    pages.resize(sequences * pages_each);
    std::iota(pages.begin(), pages.end(), 0);
    std::shuffle(pages.begin(), pages.end(), std::mt19937(7));
    kv = {.format = shape.format,
          .num_layers = 2,
          .num_heads = shape.kv_heads,
          .page_size = shape.page_size,
          .head_dim = shape.head_dim,
          .num_pages = static_cast<std::int32_t>(pages.size())};
    // What nobody wrote is NaN, or has the scale NaN: it may be read, but must not be used.
    cache.assign(pages.size() * page_bytes(kv), std::byte{0xff});
    kv.data = cache.data();
    table = {pages.data(), pages_each};
    for (int h = 0; h < shape.num_heads; ++h) {
      kv_head.push_back(h * shape.kv_heads / shape.num_heads);
    }
  }

  int width() const { return (shape.num_heads + 2 * shape.kv_heads) * shape.head_dim; }

  /// Appends the keys and values of positions [begin, end) of a sequence, and leaves q behind.
  void append(const std::vector<RowPlace>& rows, std::uint32_t seed) {
    rows_at = rows;
    qkv = random_floats(rows.size() * width(), 1.0f, seed);
    cos.assign(rows.size() * shape.head_dim / 2, 1.0f);
    sin.assign(rows.size() * shape.head_dim / 2, 0.0f);
    reference::rope_append(append_params(qkv.data()));
  }

  /// Leaves only rows [begin, end) of the step.
  void keep(int begin, int end) {
    rows_at = {rows_at.begin() + begin, rows_at.begin() + end};
    qkv = {qkv.begin() + begin * width(), qkv.begin() + end * width()};
  }

  RopeAppendParams append_params(float* in) {
    return {.qkv = in,
            .cos = cos.data(),
            .sin = sin.data(),
            .kv = kv,
            .layer = 1,
            .num_heads = shape.num_heads,
            .rows_at = rows_at.data(),
            .page_table = table,
            .rows = static_cast<std::int64_t>(rows_at.size())};
  }

  AttentionParams attention_params(std::vector<float>& out) {
    out.assign(rows_at.size() * shape.num_heads * shape.head_dim, 0.0f);
    return {.qkv = qkv.data(),
            .qkv_stride = width(),
            .kv = kv,
            .layer = 1,
            .num_heads = shape.num_heads,
            .kv_head = kv_head.data(),
            .scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim)),
            .rows_at = rows_at.data(),
            .ancestors = ancestors.data(),
            .page_table = table,
            .out = out.data(),
            .rows = static_cast<std::int64_t>(rows_at.size()),
            .math = shape.math};
  }

  double element(KvPart part, const RowPlace& row, int position, int head, int d) const {
    const std::int32_t slot = slot_of_position(row, ancestors.data(), position);
    const std::int64_t at = kv_offset(kv, table, row.sequence, slot, 1, part, head);
    switch (kv.format) {
      case KvFormat::kFp32:
        return reinterpret_cast<const float*>(kv.data)[at + d];
      case KvFormat::kBf16:
        return bf16_to_fp32(reinterpret_cast<const std::uint16_t*>(kv.data)[at + d]);
      case KvFormat::kInt8:
        return static_cast<double>(reinterpret_cast<const std::int8_t*>(kv.data)[at + d]) *
               kv_scale(kv, at, slot);
    }
    return 0;
  }

  AttentionShape shape;
  std::vector<std::int32_t> pages;
  std::vector<std::byte> cache;
  KvPool kv;
  PageTable table;
  std::vector<std::int32_t> kv_head;
  std::vector<std::int32_t> ancestors;
  std::vector<RowPlace> rows_at;
  std::vector<float> qkv, cos, sin;
};

/// A row behind all tokens before it: a prompt's, or plain decoding's.
inline RowPlace plain_row(int sequence, int position) {
  return {.sequence = sequence, .position = position, .slot = position, .base = position + 1};
}

inline std::vector<RowPlace> prompt_rows(int sequence, int begin, int end) {
  std::vector<RowPlace> rows;
  for (int t = begin; t < end; ++t) rows.push_back(plain_row(sequence, t));
  return rows;
}

}  // namespace paceline::kernels
