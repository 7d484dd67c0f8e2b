#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "kernels/core/sampling.h"
#include "kernels/cpu/ops.h"
#include "kernels/reference/ops.h"
#include "tests/kernels/every_cpu.h"
#include "tests/kernels/select_params.h"

namespace paceline::kernels {
namespace {

using Floats = std::vector<float>;
using Tokens = std::vector<std::int32_t>;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Tokens reference_tokens(const Floats& logits, const std::vector<SamplingRow>& rows) {
  Tokens tokens;
  reference::select_tokens(select_params(logits, rows, tokens));
  return tokens;
}

/// The reference's tokens, after a check that every CPU gives the same, for the rows together and
/// for the first one alone.
Tokens select(const Floats& logits, const std::vector<SamplingRow>& rows) {
  const Tokens expected = reference_tokens(logits, rows);
  on_every_cpu([&](const cpu::RowOps& ops, ThreadPool& pool) {
    Tokens tokens;
    SelectTokensParams params = select_params(logits, rows, tokens);
    cpu::select_tokens(params, ops, pool);
    EXPECT_EQ(tokens, expected);
    params.rows = 1;
    tokens[0] = -2;
    cpu::select_tokens(params, ops, pool);
    EXPECT_EQ(tokens[0], expected[0]);
  });
  return expected;
}

/// The largest logits of all rows, after a check that every CPU finds them, together and alone.
std::vector<LargestLogit> largest(const Floats& logits, std::int64_t rows) {
  const std::int64_t vocab = static_cast<std::int64_t>(logits.size()) / rows;
  std::vector<LargestLogit> expected(static_cast<std::size_t>(rows));
  reference::largest_logits({logits.data(), expected.data(), rows, vocab});
  on_every_cpu([&](const cpu::RowOps& ops, ThreadPool& pool) {
    for (std::int64_t row = 0; row <= rows; ++row) {  // the last: all
      std::vector<LargestLogit> found(static_cast<std::size_t>(rows));
      const std::int64_t first = row < rows ? row : 0;
      const std::int64_t count = row < rows ? 1 : rows;
      cpu::largest_logits({logits.data() + first * vocab, found.data(), count, vocab}, ops, pool);
      for (std::int64_t r = 0; r < count; ++r) {
        const LargestLogit& want = expected[static_cast<std::size_t>(first + r)];
        EXPECT_EQ(found[static_cast<std::size_t>(r)].all_finite, want.all_finite);
        if (want.all_finite == 0) continue;
        EXPECT_EQ(found[static_cast<std::size_t>(r)].id, want.id);
        EXPECT_EQ(found[static_cast<std::size_t>(r)].logit, want.logit);
      }
    }
  });
  return expected;
}

TEST(LargestLogits, TiesGoToTheLowerId) {
  const auto found = largest({1, 3, 3, -2, /**/ -5, -4, -7, -4}, 2);
  EXPECT_EQ(found[0].id, 1);
  EXPECT_EQ(found[0].logit, 3);
  EXPECT_EQ(found[1].id, 1);
}

TEST(LargestLogits, SayWhatIsNotFinite) {
  const auto found = largest({1, kInf, 0, /**/ 1, 2, 0, /**/ kNan, 1, 2, /**/ 1, -kInf, 2}, 4);
  EXPECT_EQ(found[0].all_finite, 0);
  EXPECT_EQ(found[1].all_finite, 1);
  EXPECT_EQ(found[1].id, 1);
  EXPECT_EQ(found[2].all_finite, 0);
  EXPECT_EQ(found[3].all_finite, 0);
}

TEST(LargestLogits, OfARealVocabulary) {
  Floats logits(2 * 49157);
  for (std::size_t i = 0; i < logits.size(); ++i) logits[i] = std::sin(static_cast<float>(i * 7));
  largest(logits, 2);
  logits[49157 + 49100] = kNan;
  EXPECT_EQ(largest(logits, 2)[1].all_finite, 0);
}

// Three parts of a vocabulary, the second without tokens: of equals the first part's wins.
TEST(MergeLargest, IsTheLargestOfAllParts) {
  const std::vector<LargestLogit> parts = {{1, 4, 1},  {2, 0, 1},  {5, 3, 1},   //
                                           {0, -1, 1}, {0, -1, 1}, {0, -1, 1},  //
                                           {3, 2, 1},  {2, 6, 1},  {9, 1, 0}};
  const std::vector<std::int32_t> first_ids = {0, 10, 10};
  std::vector<std::int32_t> tokens(3);
  const MergeLargestParams params{parts.data(), first_ids.data(), tokens.data(), 3, 3};
  reference::merge_largest(params);
  EXPECT_EQ(tokens, (std::vector<std::int32_t>{12, 0, -1}));
  tokens.assign(3, 7);
  cpu::merge_largest(params);
  EXPECT_EQ(tokens, (std::vector<std::int32_t>{12, 0, -1}));
}

TEST(LargestLogits, NoVocabularyHasNone) {
  on_every_cpu([](const cpu::RowOps& ops, ThreadPool& pool) {
    LargestLogit found{1, 1, 0};
    cpu::largest_logits({nullptr, &found, 1, 0}, ops, pool);
    EXPECT_EQ(found.id, -1);
    EXPECT_EQ(found.all_finite, 1);
  });
}

std::int32_t select_one(const Floats& logits, const SamplingRow& row) {
  return select(logits, {row})[0];
}

/// The tokens that some noise can choose: tried with many indices.
std::set<std::int32_t> chosen(const Floats& logits, SamplingRow row, int tries = 400) {
  Floats repeated;
  std::vector<SamplingRow> rows;
  for (int i = 0; i < tries; ++i) {
    repeated.insert(repeated.end(), logits.begin(), logits.end());
    row.index = i;
    rows.push_back(row);
  }
  const Tokens tokens = select(repeated, rows);
  return {tokens.begin(), tokens.end()};
}

Floats logs(const std::vector<double>& probabilities) {
  Floats logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

TEST(SelectGreedy, TheLargestLogitTiesToTheLowerId) {
  EXPECT_EQ(select_one({1, 3, 2, 3}, {}), 1);
  EXPECT_EQ(select_one({-5, -5, -5}, {}), 0);
  EXPECT_EQ(select_one({-0.0f, 0.0f}, {}), 0);
  EXPECT_EQ(select_one({-2e38f, -3e38f}, {}), 0);
  EXPECT_EQ(select_one({7}, {}), 0);
}

TEST(SelectGreedy, FindsItWhereverItIs) {
  Floats logits = random_floats(40'003, 1.0f, 1);
  for (const std::size_t at : {0, 15, 16, 2047, 2048, 13'343, 16'383, 16'384, 39'999, 40'002}) {
    logits[at] += 100;
    EXPECT_EQ(select_one(logits, {}), static_cast<std::int32_t>(at));
    logits[at] -= 100;
  }
}

TEST(Select, ALogitThatIsNotFiniteGivesNoToken) {
  for (const float bad : {kInf, -kInf, kNan, -kNan}) {
    for (const std::size_t at : {0, 16, 8191, 8192, 19'999}) {
      Floats logits(20'000, 1.0f);
      logits[at] = bad;
      EXPECT_EQ(select_one(logits, {}), -1);
      EXPECT_EQ(select_one(logits, {.temperature = 1, .top_k = 3, .top_p = 0.5}), -1);
    }
  }
}

TEST(Select, NoRowsAndAnEmptyVocabulary) {
  Tokens tokens = {5};
  const SamplingRow row;
  const Floats logits = {1};
  on_every_cpu([&](const cpu::RowOps& ops, ThreadPool& pool) {
    tokens[0] = 5;
    cpu::select_tokens(
        {.logits = logits.data(), .sampling = &row, .tokens = tokens.data(), .rows = 0, .vocab = 1},
        ops, pool);
    EXPECT_EQ(tokens[0], 5);
    cpu::select_tokens(
        {.logits = logits.data(), .sampling = &row, .tokens = tokens.data(), .rows = 1, .vocab = 0},
        ops, pool);
    EXPECT_EQ(tokens[0], -1);
  });
}

// Of 0.4, 0.3, 0.2, 0.1 top-k keeps the first k; of equals the lower ids.
TEST(SelectTopK, KeepsTheKMostProbable) {
  const Floats logits = logs({0.1, 0.4, 0.2, 0.3});
  using Set = std::set<std::int32_t>;
  EXPECT_EQ(chosen(logits, {.temperature = 1, .top_k = 1}), (Set{1}));
  EXPECT_EQ(chosen(logits, {.temperature = 1, .top_k = 2}), (Set{1, 3}));
  EXPECT_EQ(chosen(logits, {.temperature = 1, .top_k = 3}), (Set{1, 2, 3}));
  EXPECT_EQ(chosen(logits, {.temperature = 1, .top_k = 4}), (Set{0, 1, 2, 3}));
  EXPECT_EQ(chosen(logits, {.temperature = 1, .top_k = 9}), (Set{0, 1, 2, 3}));
  EXPECT_EQ(chosen({1, 2, 2, 2, 2}, {.temperature = 1, .top_k = 3}), (Set{1, 2, 3}));
}

// The crossing token is kept: of 0.4, 0.3, 0.2, 0.1 a mass of 0.5 needs two.
TEST(SelectTopP, KeepsTheShortestPrefixOfThatMass) {
  const Floats logits = logs({0.1, 0.4, 0.2, 0.3});
  using Set = std::set<std::int32_t>;
  EXPECT_EQ(chosen(logits, {.temperature = 1, .top_p = 0.0f}), (Set{1}));
  EXPECT_EQ(chosen(logits, {.temperature = 1, .top_p = 0.39f}), (Set{1}));
  EXPECT_EQ(chosen(logits, {.temperature = 1, .top_p = 0.41f}), (Set{1, 3}));
  EXPECT_EQ(chosen(logits, {.temperature = 1, .top_p = 0.5f}), (Set{1, 3}));
  EXPECT_EQ(chosen(logits, {.temperature = 1, .top_p = 0.75f}), (Set{1, 2, 3}));
  EXPECT_EQ(chosen(logits, {.temperature = 1, .top_p = 0.95f}), (Set{0, 1, 2, 3}));
  // Four equals: half of the mass is the two lower ids.
  EXPECT_EQ(chosen({1, 1, 1, 1}, {.temperature = 1, .top_p = 0.5f}), (Set{0, 1}));
}

// Renormalized after top-k: 0.4 and 0.3 are 0.571 and 0.429, so 0.55 needs only one of them.
TEST(SelectTopP, IsOfWhatTopKKept) {
  const Floats logits = logs({0.1, 0.4, 0.2, 0.3});
  using Set = std::set<std::int32_t>;
  EXPECT_EQ(chosen(logits, {.temperature = 1, .top_k = 2, .top_p = 0.55f}), (Set{1}));
  EXPECT_EQ(chosen(logits, {.temperature = 1, .top_k = 3, .top_p = 0.55f}), (Set{1, 3}));
  EXPECT_EQ(chosen(logits, {.temperature = 1, .top_k = 2, .top_p = 0.6f}), (Set{1, 3}));
}

// Temperature comes before the cuts: at T = 1/2 the probabilities are squared, 0.533, 0.3, ...
TEST(SelectTopP, IsAfterTemperature) {
  const Floats logits = logs({0.1, 0.4, 0.2, 0.3});
  EXPECT_EQ(chosen(logits, {.temperature = 0.5, .top_p = 0.5f}), (std::set<std::int32_t>{1}));
}

TEST(Select, ExtremeTemperatures) {
  const Floats logits = {1, 3.0000002f, -3e38f, 3, 3e38f, 2.9e38f};
  for (const float tiny : {1e-3f, 1e-30f, std::numeric_limits<float>::denorm_min()}) {
    EXPECT_EQ(chosen(logits, {.temperature = tiny}, 50), (std::set<std::int32_t>{4}));
    EXPECT_EQ(chosen(logits, {.temperature = tiny, .top_k = 5, .top_p = 0.9999f}, 50),
              (std::set<std::int32_t>{4}));
  }
  EXPECT_EQ(chosen({5, 4, 4.5f}, {.temperature = 1e38f}).size(), 3u);
  EXPECT_EQ(chosen({5, 4, 4.5f}, {.temperature = kInf}).size(), 3u);
  // All equal after the division, so that the lower ids are kept, not the larger logits.
  EXPECT_EQ(chosen({0, 1e-8f, 5e-9f}, {.temperature = kInf, .top_k = 1}),
            (std::set<std::int32_t>{0}));
  EXPECT_EQ(chosen({4, 5, 4.5f}, {.temperature = kNan}), (std::set<std::int32_t>{1}));
}

TEST(Select, TheTokenIsAFunctionOfLogitsSeedAndIndex) {
  const Floats logits = random_floats(1000, 1.0f, 2);
  const SamplingRow row{.temperature = 1, .seed = 42, .index = 7};
  const std::int32_t token = select_one(logits, row);
  EXPECT_EQ(select_one(logits, row), token);
  std::set<std::int32_t> others;
  for (const std::uint64_t high : {std::uint64_t{1}, std::uint64_t{1} << 32}) {
    others.insert(select_one(logits, {.temperature = 1, .seed = 42 + high, .index = 7}));
    others.insert(select_one(logits, {.temperature = 1, .seed = 42, .index = 7 + high}));
  }
  EXPECT_GE(others.size(), 3u);
  EXPECT_FALSE(others.contains(token));
}

TEST(Select, GoldenTokens) {
  Floats logits = random_floats(4 * 5000, 2.0f, 3);
  EXPECT_EQ(select(logits, {{.temperature = 1, .seed = 1, .index = 0},
                            {.temperature = 0.7f, .top_k = 40, .seed = 2, .index = 1},
                            {.temperature = 1.5f, .top_p = 0.9f, .seed = 3, .index = 2},
                            {.temperature = 1, .top_k = 100, .top_p = 0.5f, .seed = 4}}),
            (Tokens{1498, 4620, 1709, 2075}));
}

// Chi-square of the sampled frequencies against the probabilities.
void expect_distribution(const Floats& logits, const SamplingRow& row,
                         const std::vector<double>& probabilities) {
  constexpr int kRows = 20'000;
  Floats repeated;
  std::vector<SamplingRow> rows(kRows, row);
  for (int i = 0; i < kRows; ++i) {
    repeated.insert(repeated.end(), logits.begin(), logits.end());
    rows[i].index = i;
  }
  std::vector<int> counts(logits.size());
  for (const std::int32_t token : select(repeated, rows)) ++counts.at(token);
  double chi_square = 0;
  double freedom = -1;
  for (std::size_t id = 0; id < counts.size(); ++id) {
    if (probabilities[id] == 0) {
      EXPECT_EQ(counts[id], 0);
      continue;
    }
    const double expected = probabilities[id] * kRows;
    chi_square += (counts[id] - expected) * (counts[id] - expected) / expected;
    freedom += 1;
  }
  // Far beyond the 99.9 % quantile; the draws are fixed, so this fails always or never.
  EXPECT_LT(chi_square, freedom + 4 * std::sqrt(2 * freedom));
}

TEST(Select, SamplesTheSoftmax) {
  const std::vector<double> p = {0.02, 0.3, 0.05, 0.13, 0.2, 0.01, 0.04, 0.15, 0.06, 0.04};
  expect_distribution(logs(p), {.temperature = 1, .seed = 11}, p);
  // T = 1/2 squares, top-k 4 keeps 0.3, 0.2, 0.15, 0.13.
  std::vector<double> kept(p.size());
  double sum = 0;
  for (const int id : {1, 4, 7, 3}) sum += kept[id] = p[id] * p[id];
  for (double& q : kept) q /= sum;
  expect_distribution(logs(p), {.temperature = 0.5, .top_k = 4, .seed = 12}, kept);
}

// The noise of the largest and smallest random numbers bounds all others: what the CPU's skipping
// relies on.
TEST(Gumbel, LiesWithinItsBounds) {
  EXPECT_NEAR(gumbel(0xffffffff), 33 * std::log(2.0), 1e-9);
  EXPECT_NEAR(gumbel(0), -std::log(33 * std::log(2.0)), 1e-12);
  EXPECT_LT(gumbel(0xffffffff), 23.0);
  std::mt19937 random(5);
  for (int i = 0; i < 100'000; ++i) {
    const std::uint32_t x = random();
    const double g = gumbel(x);
    EXPECT_LE(g, gumbel(0xffffffff));
    EXPECT_GE(g, gumbel(0));
    // The cheap necessary condition: 1 - u <= exp(-g).
    EXPECT_LE((4294967295.5 - x) * 0x1p-32, std::exp(-g) * (1 + 1e-12));
  }
}

TEST(Select, SameTokensEverywhere) {
  std::mt19937 random(6);
  for (const std::int64_t vocab : {1, 3, 15, 16, 17, 63, 100, 129, 1000, 5003}) {
    for (const float spread : {0.0f, 0.01f, 1.0f, 5.0f, 40.0f}) {
      std::vector<SamplingRow> rows;
      for (const float temperature : {0.0f, 0.05f, 0.8f, 1.0f, 3.0f}) {
        for (const std::int32_t top_k : {0, 1, 5, 40, 2000}) {
          for (const float top_p : {1.0f, 0.95f, 0.3f, 0.0f}) {
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

TEST(Select, SameTokensForALargeVocabulary) {
  constexpr std::int64_t kVocab = 49'152;
  std::vector<SamplingRow> rows;
  for (const float temperature : {0.0f, 0.6f, 1.0f}) {
    for (const std::int32_t top_k : {0, 50, 40'000}) {
      for (const float top_p : {1.0f, 0.9f, 0.999f}) {
        rows.push_back({temperature, top_k, top_p, 1234567890123456789u, rows.size()});
      }
    }
  }
  select(random_floats(rows.size() * kVocab, 2.5f, 8), rows);
}

}  // namespace
}  // namespace paceline::kernels
