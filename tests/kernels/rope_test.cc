#include <gtest/gtest.h>

#include <cmath>

#include "kernels/core/exact_math.h"
#include "kernels/core/half.h"
#include "kernels/core/kv_address.h"
#include "kernels/cpu/ops.h"
#include "kernels/reference/ops.h"
#include "tests/kernels/every_cpu.h"

namespace paceline::kernels {
namespace {

using Floats = std::vector<float>;

TEST(RopeTable, CosAndSinOfTheFloatProduct) {
  const std::vector<std::int32_t> positions = {0, 1, 17, 2047, 131071, 1000000};
  constexpr int kHeadDim = 64;
  Floats inv_freq;
  for (int i = 0; i < kHeadDim / 2; ++i) {
    inv_freq.push_back(static_cast<float>(exact::pow(100000.0, -2.0 * i / kHeadDim)));
  }
  const std::size_t size = positions.size() * inv_freq.size();
  Floats cos(size), sin(size);
  RopeTableParams params{.positions = positions.data(),
                         .inv_freq = inv_freq.data(),
                         .cos = cos.data(),
                         .sin = sin.data(),
                         .rows = static_cast<std::int64_t>(positions.size()),
                         .head_dim = kHeadDim};
  reference::rope_table(params);
  for (std::size_t i = 0; i < size; ++i) {
    const float angle =
        static_cast<float>(positions[i / inv_freq.size()]) * inv_freq[i % inv_freq.size()];
    EXPECT_EQ(cos[i], static_cast<float>(std::cos(static_cast<double>(angle))));
    EXPECT_EQ(sin[i], static_cast<float>(std::sin(static_cast<double>(angle))));
  }
  on_every_cpu([&](const cpu::RowOps& ops, ThreadPool& pool) {
    Floats vector_cos(size), vector_sin(size);
    params.cos = vector_cos.data();
    params.sin = vector_sin.data();
    cpu::rope_table(params, ops, pool);
    expect_same_bits(vector_cos, cos);
    expect_same_bits(vector_sin, sin);
  });
}

/// A cache of two pages of 16 slots, and three rows that write to it.
struct Append {
  Append(int head_dim, KvFormat format) {
    kv = {.format = format,
          .num_layers = 2,
          .num_heads = 2,
          .page_size = 16,
          .head_dim = head_dim,
          .num_pages = 2};
    bytes.resize(kv.num_pages * page_bytes(kv));
    kv.data = bytes.data();
    const int heads = num_heads + 2 * kv.num_heads;
    qkv = awkward_floats(3 * heads * head_dim, false, 1);
    bias = awkward_floats(heads * head_dim, true, 2);
    cos = random_floats(3 * head_dim / 2, 1, 3);
    sin = random_floats(3 * head_dim / 2, 1, 4);
  }

  Append(const Append&) = delete;
  Append& operator=(const Append&) = delete;

  RopeAppendParams params(bool with_bias) {
    return {.qkv = qkv.data(),
            .bias = with_bias ? bias.data() : nullptr,
            .cos = cos.data(),
            .sin = sin.data(),
            .kv = kv,
            .layer = 1,
            .num_heads = num_heads,
            .rows_at = rows_at.data(),
            .page_table = {pages.data(), 2},
            .rows = 3};
  }

  /// The cache as fp32; in int8 byte by byte, the scales' too.
  Floats cache() const {
    Floats values;
    for (std::size_t i = 0; i < bytes.size() / element_bytes(kv.format); ++i) {
      switch (kv.format) {
        case KvFormat::kFp32:
          values.push_back(reinterpret_cast<const float*>(bytes.data())[i]);
          break;
        case KvFormat::kBf16:
          values.push_back(bf16_to_fp32(reinterpret_cast<const std::uint16_t*>(bytes.data())[i]));
          break;
        case KvFormat::kInt8:
          values.push_back(reinterpret_cast<const std::int8_t*>(bytes.data())[i]);
          break;
      }
    }
    return values;
  }

  /// The elements of row 1's key or value, as they are in `cache()`.
  Floats stored(KvPart part, int head) const {
    const Floats all = cache();
    const auto at = all.begin() + stored_offset(part, head);
    return Floats(at, at + kv.head_dim);
  }
  float stored_scale(KvPart part, int head) const {
    return kv_scale(kv, stored_offset(part, head), 20);
  }
  std::int64_t stored_offset(KvPart part, int head) const {
    return kv_offset(kv, {pages.data(), 2}, 1, 20, 1, part, head);
  }

  static constexpr int num_heads = 3;
  KvPool kv;
  std::vector<std::byte> bytes;
  std::vector<std::int32_t> pages = {0, 0, 1, 0};  // sequence 0: page 0 (unused 0); 1: pages 1, 0
  std::vector<RowPlace> rows_at = {{.sequence = 1, .position = 3, .slot = 3},
                                   {.sequence = 1, .position = 17, .slot = 20},
                                   {.sequence = 0, .position = 0, .slot = 0}};
  Floats qkv, bias, cos, sin;
};

/// Row 1's heads of q, k and v as they come in: 1, 2, 3 and so on.
float* count_in_row_1(Append& step) {
  float* row = step.qkv.data() + 7 * 4;
  for (int i = 0; i < 28; ++i) row[i] = static_cast<float>(i + 1);
  step.cos[2] = 0.0f, step.sin[2] = 1.0f;  // a quarter turn of elements 0 and 2
  step.cos[3] = 1.0f, step.sin[3] = 0.0f;  // none of 1 and 3
  return row;
}

TEST(RopeAppend, RotatesAndStores) {
  Append step(4, KvFormat::kBf16);
  const float* row = count_in_row_1(step);
  reference::rope_append(step.params(false));
  EXPECT_EQ(Floats(row, row + 4), (Floats{-3, 2, 1, 4}));
  EXPECT_EQ(step.stored(KvPart::kKey, 1), (Floats{-19, 18, 17, 20}));
  EXPECT_EQ(step.stored(KvPart::kValue, 1), (Floats{25, 26, 27, 28}));
}

// The largest becomes 127: -19 * 127 / 20 is -120.65.
TEST(RopeAppend, RoundsToInt8WithAScaleForEachKeyAndValue) {
  Append step(4, KvFormat::kInt8);
  count_in_row_1(step);
  reference::rope_append(step.params(false));
  EXPECT_EQ(step.stored(KvPart::kKey, 1), (Floats{-121, 114, 108, 127}));
  EXPECT_EQ(step.stored_scale(KvPart::kKey, 1), 20.0f / 127.0f);
  EXPECT_EQ(step.stored(KvPart::kValue, 1), (Floats{113, 118, 122, 127}));
  EXPECT_EQ(step.stored_scale(KvPart::kValue, 1), 28.0f / 127.0f);
}

TEST(RopeAppend, AddsTheBiasFirst) {
  Append with(16, KvFormat::kFp32), without(16, KvFormat::kFp32);
  for (std::size_t i = 0; i < with.qkv.size(); ++i) {
    without.qkv[i] = with.qkv[i] + with.bias[i % with.bias.size()];
  }
  reference::rope_append(with.params(true));
  reference::rope_append(without.params(false));
  expect_same_bits(with.qkv, without.qkv);
  expect_same_bits(with.cache(), without.cache());
}

TEST(RopeAppend, SameBitsEverywhere) {
  for (const KvFormat format : {KvFormat::kFp32, KvFormat::kBf16, KvFormat::kInt8}) {
    for (const int head_dim : {2, 8, 20, 32, 64, 80, 128}) {
      for (const bool with_bias : {false, true}) {
        Append expected(head_dim, format);
        reference::rope_append(expected.params(with_bias));
        on_every_cpu([&](const cpu::RowOps& ops, ThreadPool& pool) {
          Append step(head_dim, format);
          cpu::rope_append(step.params(with_bias), ops, pool);
          expect_same_bits(step.qkv, expected.qkv);
          expect_same_bits(step.cache(), expected.cache());
        });
      }
    }
  }
}

}  // namespace
}  // namespace paceline::kernels
