#include "kernels/core/error.h"
#include "tests/kernels/cuda/attention_results.h"

// AttentionMath::kBf16: what the reference gives; and, compared bit by bit on a GPU too, rows that
// do not depend on their company.

namespace paceline::kernels {
namespace {

using Shape = AttentionShape;
constexpr AttentionMath kBf16 = AttentionMath::kBf16;

/// Each row gives the same bits in the step as alone, with segments in blocks of their own or not.
void expect_rows_as_alone(const AttentionStep& step) {
  const auto size = static_cast<int>(step.rows_at.size());
  Floats alone;
  for (int row = 0; row < size; ++row) {
    AttentionStep one = step;
    one.keep(row, row + 1);
    Floats out;
    cuda::attention(one.attention_params(out), nullptr, nullptr);
    alone.insert(alone.end(), out.begin(), out.end());
  }
  AttentionStep all = step;
  in_every_order(
      [&] { with_both_splits(all, [&](const Floats& out) { expect_same_bits(out, alone); }); });
}

// A prompt chunk across the end of a segment, behind other sequences' rows.
TEST(CudaTensorAttention, SameBits) {
  for (const KvFormat format : {KvFormat::kBf16, KvFormat::kInt8}) {
    for (const int head_dim : {16, 48, 64, 80, 96, 128, 256}) {
      AttentionStep step(
          {.num_heads = 4, .kv_heads = 2, .head_dim = head_dim, .format = format, .math = kBf16}, 3,
          300);
      std::vector<RowPlace> rows = prompt_rows(1, 0, 261);
      const std::vector<RowPlace> other = prompt_rows(0, 0, 3);
      rows.insert(rows.end(), other.begin(), other.end());
      rows.push_back(plain_row(2, 0));
      step.append(rows, 2);
      step.keep(253, static_cast<int>(rows.size()));
      SCOPED_TRACE(head_dim);
      expect_reference_attention(step);
      expect_rows_as_alone(step);
    }
  }
}

// As many query heads of a cache head as there are: one, some that do not fill a tile, more than
// two; dealt in no order.
TEST(CudaTensorAttention, SameBitsForGroupsOfHeads) {
  for (const Shape& shape : {Shape{.num_heads = 3, .kv_heads = 3, .math = kBf16},
                             Shape{.num_heads = 5, .kv_heads = 1, .math = kBf16},
                             Shape{.num_heads = 8, .kv_heads = 1, .math = kBf16},
                             Shape{.num_heads = 35, .kv_heads = 1, .head_dim = 16, .math = kBf16},
                             Shape{.num_heads = 7, .kv_heads = 3, .head_dim = 32, .math = kBf16}}) {
    AttentionStep step(shape, 1, 80);
    step.append(prompt_rows(0, 0, 70), 3);
    std::ranges::reverse(step.kv_head);
    step.keep(59, 70);
    expect_reference_attention(step);
    expect_rows_as_alone(step);
  }
}

// Pages of 16, 48 and 64 slots: a block of 32 positions ends inside of one, or not.
TEST(CudaTensorAttention, SameBitsForEverySizeOfPages) {
  for (const int page_size : {16, 48, 64}) {
    AttentionStep step({.num_heads = 2, .page_size = page_size, .math = kBf16}, 2, 550);
    step.append(prompt_rows(0, 0, 540), 3);
    step.keep(520, 540);
    expect_reference_attention(step);
  }
}

/// Rows of sequence 1 behind `length` tokens, whose keys are there:
///
///   root -> 0 -> 1 -> 3
///             -> 2 -> 4
struct Tree {
  Tree(AttentionStep& step, int length) {
    for (const auto& path : paths) {
      const auto first = static_cast<std::int32_t>(step.ancestors.size());
      for (const int node : path) step.ancestors.push_back(length + node);
      rows.push_back({.sequence = 1,
                      .position = length + static_cast<int>(path.size()) - 1,
                      .slot = length + path.back(),
                      .base = length,
                      .first_ancestor = first});
    }
  }
  std::vector<std::vector<int>> paths = {{0}, {0, 1}, {0, 2}, {0, 1, 3}, {0, 2, 4}};
  std::vector<RowPlace> rows;
};

// Across the ends of a product's 16 keys, of a block and of a segment.
TEST(CudaTensorAttention, ATreeNodeSeesItsAncestorsAtTheirDepth) {
  for (const int length : {1, 15, 31, 62, 254, 255}) {
    for (const KvFormat format : {KvFormat::kBf16, KvFormat::kInt8}) {
      AttentionStep step({.num_heads = 6, .kv_heads = 2, .format = format, .math = kBf16}, 2,
                         length + 16);
      step.append(prompt_rows(1, 0, length), 5);
      step.append(prompt_rows(0, 0, 3), 6);
      const Tree tree(step, length);
      std::vector<RowPlace> rows = {plain_row(0, 3)};
      rows.insert(rows.end(), tree.rows.begin(), tree.rows.end());
      step.append(rows, 7);
      SCOPED_TRACE(length);
      expect_reference_attention(step);
      expect_rows_as_alone(step);

      // Fed as a prompt's tokens each path gives the same.
      Floats of_tree;
      cuda::attention(step.attention_params(of_tree), nullptr, nullptr);
      const Floats tree_qkv = step.qkv;
      for (const std::vector<int>& path : {tree.paths[3], tree.paths[4]}) {
        step.rows_at = prompt_rows(1, length, length + static_cast<int>(path.size()));
        step.qkv.clear();
        for (const int node : path) {
          const auto at = tree_qkv.begin() + (1 + node) * step.width();
          step.qkv.insert(step.qkv.end(), at, at + step.width());
        }
        // The rotation is none, so appending again rounds the same values.
        reference::rope_append(step.append_params(step.qkv.data()));
        Floats fed;
        cuda::attention(step.attention_params(fed), nullptr, nullptr);
        for (std::size_t depth = 0; depth < path.size(); ++depth) {
          const auto from = fed.begin() + static_cast<int>(depth) * out_width(step);
          const auto to = of_tree.begin() + (1 + path[depth]) * out_width(step);
          expect_same_bits(Floats(from, from + out_width(step)), Floats(to, to + out_width(step)));
        }
      }
    }
  }
}

// As the engine packs them: requests that decode, each with a tree of another size or none.
TEST(CudaTensorAttention, TreesOfSeveralSequences) {
  std::mt19937 random(11);
  for (const Shape& shape : {Shape{.num_heads = 4, .kv_heads = 1, .head_dim = 32, .math = kBf16},
                             Shape{.num_heads = 3,
                             .kv_heads = 3,
                             .head_dim = 16,
                             .format = KvFormat::kInt8,
                             .math = kBf16}}) {
    constexpr int kSequences = 4;
    const int lengths[kSequences] = {1, 250, 47, 64};
    const int nodes[kSequences] = {0, 12, 0, 7};
    AttentionStep step(shape, kSequences, 270);
    for (int s = 0; s < kSequences; ++s) step.append(prompt_rows(s, 0, lengths[s] - 1), 20 + s);
    std::vector<RowPlace> rows;
    for (int s = 0; s < kSequences; ++s) {
      const int length = lengths[s];
      rows.push_back(plain_row(s, length - 1));
      std::vector<std::vector<int>> paths;
      for (int node = 0; node < nodes[s]; ++node) {
        const int parent = static_cast<int>(random() % static_cast<unsigned>(node + 1)) - 1;
        std::vector<int> path = parent < 0 ? std::vector<int>{} : paths[parent];
        path.push_back(length + node);
        rows.push_back({.sequence = s,
                        .position = length + static_cast<int>(path.size()) - 1,
                        .slot = length + node,
                        .base = length,
                        .first_ancestor = static_cast<std::int32_t>(step.ancestors.size())});
        step.ancestors.insert(step.ancestors.end(), path.begin(), path.end());
        paths.push_back(path);
      }
    }
    step.append(rows, 30);
    expect_reference_attention(step);
    expect_rows_as_alone(step);
  }
}

// Keys and values that are not finite in the middle of a chunk: rows before them share tiles,
// blocks and products with rows that see them.
TEST(CudaTensorAttention, NonFiniteKeysSpoilOnlyWhoSeesThem) {
  for (const auto& [part, value] : {std::pair{KvPart::kKey, 0x7f80},
                                    {KvPart::kKey, 0x7fc0},
                                    {KvPart::kValue, 0xff80},
                                    {KvPart::kValue, 0x7fc0}}) {
    AttentionStep step({.num_heads = 4, .kv_heads = 1, .head_dim = 32, .math = kBf16}, 1, 48);
    step.append(prompt_rows(0, 0, 40), 7);
    for (const int position : {21, 23}) {
      reinterpret_cast<std::uint16_t*>(
          step.kv.data)[kv_offset(step.kv, step.table, 0, position, 1, part, 0) + 3] =
          static_cast<std::uint16_t>(value);
    }
    step.keep(18, 26);
    expect_reference_attention(step);
    expect_rows_as_alone(step);
    Floats out;
    cuda::attention(step.attention_params(out), nullptr, nullptr);
    for (int row = 0; row < 8; ++row) {
      // An infinite key may make a score -inf, which is a weight of 0.
      if (part == KvPart::kKey && value == 0x7f80 && row >= 3) continue;
      EXPECT_EQ(std::isfinite(out[row * out_width(step) + 3]), row < 3) << row;
    }
  }
}

TEST(CudaTensorAttention, NonFiniteKeysInInt8SpoilOnlyWhoSeesThem) {
  for (const int head : {4, 5}) {  // of qkv: the key, the value
    AttentionStep step(
        {.num_heads = 4, .kv_heads = 1, .head_dim = 32, .format = KvFormat::kInt8, .math = kBf16},
        1, 48);
    step.append(prompt_rows(0, 0, 40), 7);
    step.qkv[21 * step.width() + head * 32 + 5] = std::numeric_limits<float>::infinity();
    reference::rope_append(step.append_params(step.qkv.data()));
    step.keep(18, 26);
    expect_reference_attention(step);
    expect_rows_as_alone(step);
    Floats out;
    cuda::attention(step.attention_params(out), nullptr, nullptr);
    for (int i = 0; i < 8 * out_width(step); ++i) {
      EXPECT_EQ(std::isfinite(out[i]), i < 3 * out_width(step)) << i;
    }
  }
}

// Scores of hundreds, weights that underflow, largest scores in the last blocks.
TEST(CudaTensorAttention, SameBitsForSharpScores) {
  for (const float size : {30.0f, 1e20f, 1e-20f}) {
    AttentionStep step({.num_heads = 4, .kv_heads = 1, .head_dim = 32, .math = kBf16}, 1, 300);
    step.append(prompt_rows(0, 0, 290), 9);
    for (float& element : step.qkv) element *= size;
    step.keep(270, 290);
    expect_reference_attention(step);
    expect_rows_as_alone(step);
  }
}

TEST(CudaTensorAttention, NoRowsAndNoHeads) {
  AttentionStep step({.num_heads = 0, .kv_heads = 1, .head_dim = 16, .math = kBf16}, 1, 16);
  step.append(prompt_rows(0, 0, 3), 8);
  expect_reference_attention(step);
  step.rows_at.clear();
  expect_reference_attention(step);
}

TEST(CudaTensorAttention, OtherHeadsAndCachesAreRefused) {
  for (const auto& [head_dim, format] : {std::pair{24, KvFormat::kBf16}, {32, KvFormat::kFp32}}) {
    AttentionStep step({.head_dim = head_dim, .format = format, .math = kBf16}, 1, 16);
    step.append(prompt_rows(0, 0, 3), 8);
    Floats out;
    EXPECT_THROW(cuda::attention(step.attention_params(out), nullptr, nullptr), FatalError);
  }
}

}  // namespace
}  // namespace paceline::kernels
