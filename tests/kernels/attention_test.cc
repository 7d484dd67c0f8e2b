#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>

#include "kernels/core/error.h"
#include "kernels/core/kv_address.h"
#include "kernels/cpu/ops.h"
#include "kernels/reference/ops.h"
#include "tests/kernels/attention_step.h"
#include "tests/kernels/every_cpu.h"

namespace paceline::kernels {
namespace {

using Floats = std::vector<float>;
using Shape = AttentionShape;
using Step = AttentionStep;

Floats reference_attention(Step& step) {
  Floats out;
  reference::attention(step.attention_params(out));
  return out;
}

void expect_equal_everywhere(Step& step, const Floats& expected) {
  on_every_cpu([&](const cpu::RowOps& ops, ThreadPool& pool) {
    Floats out;
    cpu::attention(step.attention_params(out), ops, pool);
    expect_same_bits(out, expected);
  });
}

class AttentionOfFormat : public testing::TestWithParam<KvFormat> {};

INSTANTIATE_TEST_SUITE_P(Formats, AttentionOfFormat,
                         testing::Values(KvFormat::kFp32, KvFormat::kBf16, KvFormat::kInt8),
                         [](const auto& tested) { return std::string(format_name(tested.param)); });

/// The largest distance from softmax in double, of some rows behind 530 tokens.
double distance_from_softmax(const Shape& shape) {
  Step step(shape, 1, 600);
  step.append(prompt_rows(0, 0, 530), 1);
  const Floats out = reference_attention(step);
  const int dim = step.shape.head_dim;
  double worst = 0;
  for (const int row : {0, 1, 15, 16, 255, 256, 529}) {
    for (int h = 0; h < step.shape.num_heads; ++h) {
      const float* q = step.qkv.data() + row * step.width() + h * dim;
      std::vector<double> weights;
      double sum = 0;
      for (int t = 0; t <= row; ++t) {
        double dot = 0;
        for (int d = 0; d < dim; ++d) {
          dot += q[d] * step.element(KvPart::kKey, step.rows_at[row], t, step.kv_head[h], d);
        }
        weights.push_back(std::exp(dot / std::sqrt(dim)));
        sum += weights.back();
      }
      for (int d = 0; d < dim; ++d) {
        double expected = 0;
        for (int t = 0; t <= row; ++t) {
          expected += weights[t] / sum *
                      step.element(KvPart::kValue, step.rows_at[row], t, step.kv_head[h], d);
        }
        const double got = out[(row * step.shape.num_heads + h) * dim + d];
        worst = std::max(worst, std::abs(got - expected));
      }
    }
  }
  return worst;
}

TEST_P(AttentionOfFormat, IsSoftmaxOfScaledDotProducts) {
  EXPECT_LE(
      distance_from_softmax({.num_heads = 4, .kv_heads = 2, .head_dim = 20, .format = GetParam()}),
      2e-6);
}

// Queries and weights have eight bits.
TEST(AttentionInBf16, IsNearSoftmaxOfScaledDotProducts) {
  for (const KvFormat format : {KvFormat::kBf16, KvFormat::kInt8}) {
    for (const int head_dim : {16, 64, 80}) {
      const double distance = distance_from_softmax({.num_heads = 4,
                                                     .kv_heads = 2,
                                                     .head_dim = head_dim,
                                                     .format = format,
                                                     .math = AttentionMath::kBf16});
      EXPECT_LE(distance, 0x1p-6) << head_dim;
      EXPECT_GE(distance, 1e-5) << head_dim;
    }
  }
}

TEST(AttentionInBf16, WorkedExample) {
  // One key: its weight is 1, whatever the score, and the result its value.
  Step step({.num_heads = 1, .head_dim = 16, .math = AttentionMath::kBf16}, 1, 16);
  step.append({plain_row(0, 0)}, 3);
  const Floats one = reference_attention(step);
  for (int d = 0; d < 16; ++d) {
    EXPECT_EQ(one[d], step.element(KvPart::kValue, step.rows_at[0], 0, 0, d));
  }
  // Two, the second's score higher by log(3): after 1 comes max = log(3), so that the first's
  // weight is 1/3, rounded to bf16 0.33398438, the sum 4/3, and the result (0.33398438 a + b) /
  // (4/3).
  step.append({plain_row(0, 0), plain_row(0, 1)}, 3);
  auto* halves = reinterpret_cast<std::uint16_t*>(step.kv.data);
  const auto at = [&](int slot, KvPart part) {
    return halves + kv_offset(step.kv, step.table, 0, slot, 1, part, 0);
  };
  for (int d = 0; d < 16; ++d) {
    for (int slot = 0; slot < 2; ++slot) {
      at(slot, KvPart::kKey)[d] = fp32_to_bf16(d == 5 ? static_cast<float>(slot) : 0.0f);
      at(slot, KvPart::kValue)[d] = fp32_to_bf16(slot == 0 ? 3.0f : 0.0f);
    }
  }
  std::ranges::fill(step.qkv, 0.0f);
  step.qkv[step.width() + 5] = 4 * 1.0986f;  // rounded to bf16 4.40625, its quarter is 1.1015625
  const Floats two = reference_attention(step);
  const double weight = bf16_to_fp32(fp32_to_bf16(static_cast<float>(std::exp(-1.1015625))));
  for (int d = 0; d < 16; ++d) {
    EXPECT_NEAR(two[16 + d], 3 * weight / (1 + std::exp(-1.1015625)), 1e-6);
  }
}

TEST(AttentionInBf16, IsRefusedOfOtherHeadsAndCaches) {
  for (const auto& [head_dim, format] : {std::pair{24, KvFormat::kBf16}, {32, KvFormat::kFp32}}) {
    Step step({.head_dim = head_dim, .format = format, .math = AttentionMath::kBf16}, 1, 16);
    step.append({plain_row(0, 0)}, 3);
    EXPECT_THROW(reference_attention(step), FatalError);
  }
}

TEST(Attention, SameBitsEverywhere) {
  for (const KvFormat format : {KvFormat::kBf16, KvFormat::kFp32, KvFormat::kInt8}) {
    for (const int head_dim : {2, 8, 16, 20, 64, 80, 128, 256}) {
      Step step({.num_heads = 6, .kv_heads = 2, .head_dim = head_dim, .format = format}, 2, 300);
      std::vector<RowPlace> rows = prompt_rows(1, 0, 290);
      const std::vector<RowPlace> other = prompt_rows(0, 0, 37);
      rows.insert(rows.end(), other.begin(), other.end());
      step.append(rows, 2);
      step.keep(245, static_cast<int>(rows.size()));
      SCOPED_TRACE(head_dim);
      expect_equal_everywhere(step, reference_attention(step));
    }
  }
}

TEST(Attention, SameBitsForManyHeadsAndMultiQuery) {
  for (const Shape& shape : {Shape{.num_heads = 71, .kv_heads = 1, .head_dim = 64},
                             Shape{.num_heads = 5, .kv_heads = 5, .head_dim = 64},
                             Shape{.num_heads = 9, .kv_heads = 3, .head_dim = 64},
                             Shape{.num_heads = 9, .kv_heads = 3, .format = KvFormat::kInt8}}) {
    Step step(shape, 1, 48);
    step.append(prompt_rows(0, 0, 41), 3);
    // Query heads need not be dealt in order.
    std::ranges::reverse(step.kv_head);
    expect_equal_everywhere(step, reference_attention(step));
  }
}

// A token sees the same sum whether it came in one chunk, in several, or alone.
TEST_P(AttentionOfFormat, ARowDoesNotDependOnItsCompany) {
  constexpr int kLength = 600;  // three segments
  Step step({.num_heads = 3, .kv_heads = 1, .head_dim = 64, .format = GetParam()}, 1, kLength);
  step.append(prompt_rows(0, 0, kLength), 4);
  const Floats together = reference_attention(step);
  const Floats all_qkv = step.qkv;
  const int out_width = step.shape.num_heads * step.shape.head_dim;
  for (const auto& [begin, end] : {std::pair{0, 1}, {255, 258}, {500, 533}, {599, 600}}) {
    step.rows_at = prompt_rows(0, begin, end);
    step.qkv.assign(all_qkv.begin() + begin * step.width(), all_qkv.begin() + end * step.width());
    expect_equal_everywhere(
        step, Floats(together.begin() + begin * out_width, together.begin() + end * out_width));
  }
}

// A tree behind the last of 20 tokens. Its nodes' keys stand in slots 20 ... 23, wherever the node
// is in the tree; along each path attention is that of a sequence in which the path was fed.
//
//   20 (position 20) -> 21 (position 21) -> 23 (position 22)
//                    -> 22 (position 21)
TEST_P(AttentionOfFormat, ATreeNodeSeesItsAncestorsAtTheirDepth) {
  for (const int length : {20, 30, 254, 255}) {  // also across a block's and a segment's end
    Step step({.num_heads = 3, .kv_heads = 1, .head_dim = 64, .format = GetParam()}, 1,
              length + 16);
    step.append(prompt_rows(0, 0, length), 5);
    const auto node = [&](int slot, int depth, int first_ancestor) {
      return RowPlace{.sequence = 0,
                      .position = length + depth,
                      .slot = length + slot,
                      .base = length,
                      .first_ancestor = first_ancestor};
    };
    const std::vector<RowPlace> nodes = {node(0, 0, 0), node(1, 1, 1), node(2, 1, 3),
                                         node(3, 2, 5)};
    step.ancestors = {length,     length, length + 1, length,
                      length + 2, length, length + 1, length + 3};
    step.append(nodes, 6);
    const Floats tree = reference_attention(step);
    const Floats tree_qkv = step.qkv;
    expect_equal_everywhere(step, tree);

    const int out_width = step.shape.num_heads * step.shape.head_dim;
    const auto feed = [&](const std::vector<int>& path) {
      step.rows_at.clear();
      step.qkv.clear();
      for (std::size_t depth = 0; depth < path.size(); ++depth) {
        step.rows_at.push_back(plain_row(0, length + static_cast<int>(depth)));
        const auto from = tree_qkv.begin() + path[depth] * step.width();
        step.qkv.insert(step.qkv.end(), from, from + step.width());
      }
      // The rotation is none (cos 1, sin 0), so appending again rounds the same values.
      reference::rope_append(step.append_params(step.qkv.data()));
      const Floats fed = reference_attention(step);
      for (std::size_t depth = 0; depth < path.size(); ++depth) {
        const auto at = tree.begin() + path[depth] * out_width;
        expect_same_bits(Floats(fed.begin() + static_cast<int>(depth) * out_width,
                                fed.begin() + static_cast<int>(depth + 1) * out_width),
                         Floats(at, at + out_width));
      }
    };
    feed({0, 1, 3});
    feed({0, 2});
  }
}

// A last token and a random tree behind it, as the engine packs them: more rows than share one
// group, siblings, chains, and other sequences before and after.
TEST(Attention, TreesOfManyRowsSeeTheirAncestors) {
  std::mt19937 random(11);
  for (const Shape& shape :
       {Shape{.num_heads = 9, .kv_heads = 3, .head_dim = 64},
        Shape{.num_heads = 4, .kv_heads = 2, .head_dim = 24},
        Shape{.num_heads = 5, .kv_heads = 1, .head_dim = 40, .format = KvFormat::kFp32},
        Shape{.num_heads = 9, .kv_heads = 3, .head_dim = 64, .format = KvFormat::kInt8},
        Shape{.num_heads = 4, .kv_heads = 1, .head_dim = 20, .format = KvFormat::kInt8}}) {
    constexpr int kSequences = 3, kNodes = 20;
    const int lengths[kSequences] = {1, 250, 47};
    Step step(shape, kSequences, 250 + kNodes);
    for (int s = 0; s < kSequences; ++s) step.append(prompt_rows(s, 0, lengths[s] - 1), 20 + s);
    std::vector<RowPlace> rows;
    for (int s = 0; s < kSequences; ++s) {
      const int length = lengths[s];
      rows.push_back(plain_row(s, length - 1));
      std::vector<std::vector<int>> paths;  // slots from depth 0 to the node's own
      for (int node = 0; node < kNodes; ++node) {
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
    expect_equal_everywhere(step, reference_attention(step));
  }
}

TEST(Attention, NonFiniteKeysSpoilOnlyWhoSeesThem) {
  Step step({.num_heads = 3, .kv_heads = 1, .head_dim = 64}, 1, 48);
  step.append(prompt_rows(0, 0, 40), 7);
  const RowPlace& row = step.rows_at[0];
  for (const auto& [position, value] : {std::pair{5, 0x7f80}, {21, 0xff80}, {33, 0x7fc0}}) {
    auto* halves = reinterpret_cast<std::uint16_t*>(step.kv.data);
    halves[kv_offset(step.kv, step.table, 0, position, 1, KvPart::kKey, 0) + 3] =
        static_cast<std::uint16_t>(value);
    halves[kv_offset(step.kv, step.table, row.sequence, position + 1, 1, KvPart::kValue, 0)] =
        static_cast<std::uint16_t>(value);
  }
  const Floats out = reference_attention(step);
  EXPECT_TRUE(std::isfinite(out[4 * 3 * 64]));
  EXPECT_TRUE(std::isnan(out[39 * 3 * 64]));
  expect_equal_everywhere(step, out);
}

// Rounded to int8 an infinity cannot be told from a NaN, and spoils the whole key or value.
TEST(Attention, NonFiniteKeysAreStillSoInInt8) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr int kKey = 3, kValue = 4;  // heads of qkv
  for (const auto& [head, bad] :
       {std::pair{kKey, kInfinity}, {kKey, -kInfinity}, {kValue, std::nanf("")}}) {
    Step step({.num_heads = 3, .kv_heads = 1, .head_dim = 64, .format = KvFormat::kInt8}, 1, 48);
    step.append(prompt_rows(0, 0, 40), 7);
    step.qkv[21 * step.width() + head * 64 + 5] = bad;
    reference::rope_append(step.append_params(step.qkv.data()));
    const Floats out = reference_attention(step);
    for (int i = 0; i < 40 * 3 * 64; ++i) {
      ASSERT_EQ(std::isnan(out[i]), i >= 21 * 3 * 64) << "element " << i;
    }
    expect_equal_everywhere(step, out);
  }
}

TEST(Attention, NoRowsAndNoHeads) {
  Step step({.num_heads = 0, .kv_heads = 1, .head_dim = 16}, 1, 16);
  step.append(prompt_rows(0, 0, 3), 8);
  expect_equal_everywhere(step, {});
  step.rows_at.clear();
  expect_equal_everywhere(step, {});
}

}  // namespace
}  // namespace paceline::kernels
