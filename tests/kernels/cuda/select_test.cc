#include <gtest/gtest.h>
#include <test_device.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/core/sampling.h"
#include "kernels/cuda/ops.h"
#include "kernels/reference/ops.h"
#include "tests/kernels/every_cpu.h"
#include "tests/kernels/select_params.h"

namespace paceline::kernels {
namespace {

using Floats = std::vector<float>;
using Tokens = std::vector<std::int32_t>;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// The reference's tokens, after a check that the kernel finds them in every order, and the first
/// one alone.
Tokens select(const Floats& logits, const std::vector<SamplingRow>& rows) {
  Tokens expected;
  reference::select_tokens(select_params(logits, rows, expected));
  in_every_order([&] {
    Tokens tokens;
    SelectTokensParams params = select_params(logits, rows, tokens);
    cuda::select_tokens(params, nullptr);
    EXPECT_EQ(tokens, expected);
    params.rows = 1;
    tokens[0] = -2;
    cuda::select_tokens(params, nullptr);
    EXPECT_EQ(tokens[0], expected[0]);
  });
  return expected;
}

std::int32_t select_one(const Floats& logits, const SamplingRow& row) {
  return select(logits, {row})[0];
}

/// Every choice in turn, over the same logits.
void select_by_all(const Floats& logits, const std::vector<SamplingRow>& rows) {
  Floats repeated;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    repeated.insert(repeated.end(), logits.begin(), logits.end());
  }
  select(repeated, rows);
}

TEST(CudaLargestLogits, TiesGoToTheLowerIdAndWhatIsNotFiniteIsSaid) {
  const Floats logits = {1,     3, 3, -2, /**/ -5,   -4, -7, -4, /**/ 1,  kInf, 0, 0, /**/
                         -0.0f, 0, 0, -1, /**/ kNan, 1,  2,  3,  /**/ -1, -1,   1, -kInf};
  std::vector<LargestLogit> expected(6);
  reference::largest_logits({logits.data(), expected.data(), 6, 4});
  in_every_order([&] {
    std::vector<LargestLogit> found(6);
    cuda::largest_logits({logits.data(), found.data(), 6, 4}, nullptr);
    for (std::size_t row = 0; row < found.size(); ++row) {
      EXPECT_EQ(found[row].all_finite, expected[row].all_finite);
      if (expected[row].all_finite == 0) continue;
      EXPECT_EQ(found[row].id, expected[row].id);
      EXPECT_TRUE(same_bits(found[row].logit, expected[row].logit));
    }
  });
  EXPECT_EQ(expected[1].id, 1);
  EXPECT_EQ(expected[2].all_finite, 0);
}

TEST(CudaMergeLargest, IsTheLargestOfAllParts) {
  const std::vector<LargestLogit> parts = {{1, 4, 1},  {2, 0, 1},  {5, 3, 1},   //
                                           {0, -1, 1}, {0, -1, 1}, {0, -1, 1},  //
                                           {3, 2, 1},  {2, 6, 1},  {9, 1, 0}};
  const std::vector<std::int32_t> first_ids = {0, 10, 10};
  std::vector<std::int32_t> tokens(3);
  cuda::merge_largest({parts.data(), first_ids.data(), tokens.data(), 3, 3}, nullptr);
  EXPECT_EQ(tokens, (std::vector<std::int32_t>{12, 0, -1}));
}

TEST(CudaLargestLogits, NoVocabularyHasNone) {
  std::vector<LargestLogit> found = {{1, 1, 0}};
  cuda::largest_logits({nullptr, found.data(), 1, 0}, nullptr);
  EXPECT_EQ(found[0].id, -1);
  EXPECT_EQ(found[0].all_finite, 1);
  Tokens token = {5};
  const std::vector<SamplingRow> sampling = {{.temperature = 1}};
  cuda::select_tokens({nullptr, sampling.data(), token.data(), 1, 0}, nullptr);
  EXPECT_EQ(token[0], -1);
}

TEST(CudaSelect, GreedyTakesTheLargestTiesToTheLowerId) {
  EXPECT_EQ(select_one({1, 3, 2, 3}, {}), 1);
  EXPECT_EQ(select_one({-5, -5, -5}, {}), 0);
  EXPECT_EQ(select_one({-0.0f, 0.0f}, {}), 0);
  EXPECT_EQ(select_one({-2e38f, -3e38f}, {}), 0);
  EXPECT_EQ(select_one({7}, {}), 0);
  EXPECT_EQ(select_one({4, 5, 4.5f}, {.temperature = kNan}), 1);
}

TEST(CudaSelect, ARowThatIsNotFiniteHasNoToken) {
  for (const float bad : {kInf, -kInf, kNan}) {
    for (const std::size_t at : {0u, 600u, 1299u}) {
      Floats logits = random_floats(1300, 1, 1);
      logits[at] = bad;
      EXPECT_EQ(select_one(logits, {}), -1);
      EXPECT_EQ(select_one(logits, {.temperature = 1, .top_k = 5, .top_p = 0.5f}), -1);
    }
  }
}

// Four equals cut between them; a cut after all tokens; limits that keep one or everything.
TEST(CudaSelect, LimitsCutTiesByTheirIds) {
  std::vector<SamplingRow> rows;
  for (std::uint64_t index = 0; index < 4; ++index) {
    rows.push_back({.temperature = 1, .top_k = 3, .index = index});
    rows.push_back({.temperature = 1, .top_p = 0.5f, .index = index});
    rows.push_back({.temperature = 1, .top_k = 4, .top_p = 0.3f, .index = index});
    rows.push_back({.temperature = 1, .top_k = 5, .top_p = 0.0f, .index = index});
    rows.push_back({.temperature = 1, .top_k = 1, .top_p = 0.9f, .index = index});
    rows.push_back({.temperature = 1, .top_k = 9, .top_p = -1.0f, .index = index});
  }
  select_by_all({1, 2, 2, 2, 2}, rows);
  select_by_all(Floats(700, 0.25f), rows);
}

TEST(CudaSelect, ExtremeTemperatures) {
  const Floats logits = {1, 3.0000002f, -3e38f, 3, 3e38f, 2.9e38f};
  std::vector<SamplingRow> rows;
  for (const float temperature :
       {1e-3f, 1e-30f, std::numeric_limits<float>::denorm_min(), 1e38f, kInf}) {
    for (std::uint64_t index = 0; index < 4; ++index) {
      rows.push_back({.temperature = temperature, .index = index});
      rows.push_back({.temperature = temperature, .top_k = 5, .top_p = 0.9999f, .index = index});
      rows.push_back({.temperature = temperature, .top_k = 1, .index = index});
    }
  }
  select_by_all(logits, rows);
  // All equal after the division, so that the lower ids are kept, not the larger logits.
  EXPECT_EQ(select_one({0, 1e-8f, 5e-9f}, {.temperature = kInf, .top_k = 1}), 0);
}

TEST(CudaSelect, SameTokensAsTheReference) {
  std::mt19937 random(6);
  for (const std::int64_t vocab : {1, 17, 1000, 5003}) {
    for (const float spread : {0.0f, 1.0f, 40.0f}) {
      std::vector<SamplingRow> rows;
      for (const float temperature : {0.05f, 1.0f, 3.0f}) {
        for (const std::int32_t top_k : {0, 5, 2000}) {
          for (const float top_p : {1.0f, 0.95f, 0.3f}) {
            rows.push_back({temperature, top_k, top_p, random(), random()});
          }
        }
      }
      Floats logits = random_floats(rows.size() * vocab, spread, random());
      // Ties, of the largest too.
      for (std::size_t i = 0; i < logits.size(); i += 3) logits[i] = std::round(logits[i]);
      SCOPED_TRACE(vocab);
      select(logits, rows);
    }
  }
}

TEST(CudaSelect, SameTokensForALargeVocabulary) {
  constexpr std::int64_t kVocab = 49'152;
  std::vector<SamplingRow> rows;
  for (const std::int32_t top_k : {0, 50, 40'000}) {
    for (const float top_p : {1.0f, 0.999f}) {
      rows.push_back({0.8f, top_k, top_p, 1234567890123456789u, rows.size()});
    }
  }
  select(random_floats(rows.size() * kVocab, 2.5f, 8), rows);
}

}  // namespace
}  // namespace paceline::kernels
