#include <gtest/gtest.h>
#include <test_device.h>

#include "tests/kernels/cuda/attention_results.h"

// AttentionMath::kFp32; attention_tensor_test.cc has kBf16.

namespace paceline::kernels {
namespace {

TEST(CudaAttention, SameBits) {
  for (const auto& [head_dim, format] : {std::pair{2, KvFormat::kBf16},
                                         {20, KvFormat::kFp32},
                                         {64, KvFormat::kBf16},
                                         {64, KvFormat::kInt8},
                                         {136, KvFormat::kBf16},
                                         {256, KvFormat::kFp32}}) {
    AttentionStep step({.num_heads = 4, .kv_heads = 2, .head_dim = head_dim, .format = format}, 2,
                       300);
    std::vector<RowPlace> rows = prompt_rows(1, 0, 262);
    const std::vector<RowPlace> other = prompt_rows(0, 0, 4);
    rows.insert(rows.end(), other.begin(), other.end());
    step.append(rows, 2);
    step.keep(254, static_cast<int>(rows.size()));
    SCOPED_TRACE(head_dim);
    expect_reference_attention(step);
  }
}

// More query heads of a cache head than share a block, as many, and dealt in no order.
TEST(CudaAttention, SameBitsForManyHeadsAndMultiQuery) {
  for (const AttentionShape& shape : {AttentionShape{.num_heads = 19, .kv_heads = 1},
                                      AttentionShape{.num_heads = 5, .kv_heads = 5},
                                      AttentionShape{.num_heads = 7, .kv_heads = 3}}) {
    AttentionStep step(shape, 1, 48);
    step.append(prompt_rows(0, 0, 37), 3);
    std::ranges::reverse(step.kv_head);
    step.keep(30, 37);
    expect_reference_attention(step);
  }
}

TEST(CudaAttention, ARowDoesNotDependOnItsCompany) {
  constexpr int kLength = 520;  // three segments
  AttentionStep step({.num_heads = 3, .kv_heads = 1, .head_dim = 16}, 1, kLength);
  step.append(prompt_rows(0, 0, kLength), 4);
  step.keep(500, kLength);
  Floats all;
  cuda::attention(step.attention_params(all), nullptr, nullptr);
  const int out_width = step.shape.num_heads * step.shape.head_dim;
  const Floats all_qkv = step.qkv;
  for (const auto& [begin, end] : {std::pair{0, 1}, {5, 8}, {11, 20}}) {
    step.rows_at = prompt_rows(0, 500 + begin, 500 + end);
    step.qkv.assign(all_qkv.begin() + begin * step.width(), all_qkv.begin() + end * step.width());
    Floats out;
    cuda::attention(step.attention_params(out), nullptr, nullptr);
    expect_same_bits(out, Floats(all.begin() + begin * out_width, all.begin() + end * out_width));
  }
}

// Siblings and chains behind the last token, across the ends of a block and of a segment.
//
//   0 -> 1 -> 3
//     -> 2 -> 4
TEST(CudaAttention, ATreeNodeSeesItsAncestorsAtTheirDepth) {
  for (const auto& [length, format] : {std::pair{1, KvFormat::kBf16},
                                       {20, KvFormat::kInt8},
                                       {254, KvFormat::kInt8},
                                       {255, KvFormat::kBf16}}) {
    AttentionStep step({.num_heads = 6, .kv_heads = 2, .format = format}, 2, length + 16);
    step.append(prompt_rows(1, 0, length), 5);
    step.append(prompt_rows(0, 0, 3), 6);
    const auto node = [&step, length = length](int slot, const std::vector<int>& path) {
      const auto first = static_cast<std::int32_t>(step.ancestors.size());
      for (const int ancestor : path) step.ancestors.push_back(length + ancestor);
      return RowPlace{.sequence = 1,
                      .position = length + static_cast<int>(path.size()) - 1,
                      .slot = length + slot,
                      .base = length,
                      .first_ancestor = first};
    };
    step.append({plain_row(0, 3), node(0, {0}), node(1, {0, 1}), node(2, {0, 2}),
                 node(3, {0, 1, 3}), node(4, {0, 2, 4})},
                7);
    expect_reference_attention(step);
  }
}

TEST(CudaAttention, NonFiniteKeysSpoilOnlyWhoSeesThem) {
  AttentionStep step({.num_heads = 3, .kv_heads = 1, .head_dim = 24}, 1, 48);
  step.append(prompt_rows(0, 0, 40), 7);
  for (const auto& [position, value] : {std::pair{5, 0x7f80}, {21, 0xff80}, {33, 0x7fc0}}) {
    reinterpret_cast<std::uint16_t*>(
        step.kv.data)[kv_offset(step.kv, step.table, 0, position, 1, KvPart::kKey, 0) + 3] =
        static_cast<std::uint16_t>(value);
  }
  expect_reference_attention(step);
}

TEST(CudaAttention, NoRowsAndNoHeads) {
  AttentionStep step({.num_heads = 0, .kv_heads = 1, .head_dim = 16}, 1, 16);
  step.append(prompt_rows(0, 0, 3), 8);
  expect_reference_attention(step);
  step.rows_at.clear();
  expect_reference_attention(step);
}

// One row behind a long text has a block for each segment; a long prompt's rows are blocks enough.
TEST(CudaAttention, SegmentsRunAtTheSameTimeWhereRowsAreFew) {
  AttentionStep step({.num_heads = 8, .kv_heads = 8}, 1, 1000);
  Floats out;
  step.rows_at = {plain_row(0, 999)};
  EXPECT_EQ(cuda::attention_workspace(step.attention_params(out)), 8 * 4 * (64 + 2));
  step.rows_at = prompt_rows(0, 0, 1000);
  step.kv.num_heads = 100;
  EXPECT_EQ(cuda::attention_workspace(step.attention_params(out)), 0);
}

}  // namespace
}  // namespace paceline::kernels
