#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/cpu/ops.h"
#include "kernels/reference/ops.h"
#include "tests/kernels/every_cpu.h"

namespace paceline::kernels {
namespace {

using Floats = std::vector<float>;
using Ids = std::vector<std::int32_t>;

struct Top {
  Ids ids, counts;
  Floats log_probs;
  explicit Top(std::int64_t rows, std::int32_t k) : ids(rows * k, -1), counts(rows, -1) {
    log_probs.resize(rows * k, 0.0f);
  }
};

TopLogProbsParams params_of(const Floats& logits, std::int64_t vocab, std::int32_t k, Top& top) {
  return {.logits = logits.data(),
          .ids = top.ids.data(),
          .log_probs = top.log_probs.data(),
          .counts = top.counts.data(),
          .rows = static_cast<std::int64_t>(logits.size()) / vocab,
          .vocab = vocab,
          .k = k};
}

// Of the probabilities 1, 2, 5, 2 (over 10) the three best, the lower id first among equals, are
// shares of 9.
TEST(TopLogProbs, AWorkedExample) {
  const Floats logits = {std::log(1.0f), std::log(2.0f), std::log(5.0f), std::log(2.0f)};
  Top top(1, 3);
  reference::top_log_probs(params_of(logits, 4, 3, top));
  EXPECT_EQ(top.counts, (Ids{3}));
  EXPECT_EQ(top.ids, (Ids{2, 1, 3}));
  EXPECT_NEAR(top.log_probs[0], std::log(5.0 / 9.0), 1e-6);
  EXPECT_NEAR(top.log_probs[1], std::log(2.0 / 9.0), 1e-6);
  EXPECT_EQ(top.log_probs[1], top.log_probs[2]);
}

TEST(TopLogProbs, ASmallVocabularyIsKeptWhole) {
  const Floats logits = {0, 0, 1};
  Top top(1, 50);
  reference::top_log_probs(params_of(logits, 3, 50, top));
  EXPECT_EQ(top.counts, (Ids{3}));
  EXPECT_EQ(Ids(top.ids.begin(), top.ids.begin() + 4), (Ids{2, 0, 1, -1}));
}

TEST(TopLogProbs, ARowThatIsNotFiniteKeepsNone) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const Floats logits = {1, kNan, 1, 2, kInfinity, 0, -kInfinity, 1};
  Top top(4, 2);
  const TopLogProbsParams params = params_of(logits, 2, 2, top);
  reference::top_log_probs(params);
  EXPECT_EQ(top.counts, (Ids{0, 2, 0, 0}));
  EXPECT_EQ(top.ids, (Ids{-1, -1, 1, 0, -1, -1, -1, -1}));
  on_every_cpu([&](const cpu::RowOps& ops, ThreadPool& pool) {
    Top again(4, 2);
    cpu::top_log_probs(params_of(logits, 2, 2, again), ops, pool);
    EXPECT_EQ(again.counts, top.counts);
    EXPECT_EQ(again.ids, top.ids);
  });
}

// Random logits; many equal ones; the largest and the smallest numbers; rows in both orders.
std::vector<Floats> rows_of_every_kind(std::int64_t vocab) {
  std::vector<Floats> kinds;
  kinds.push_back(random_floats(vocab, 4.0f, 1));
  kinds.push_back(awkward_floats(vocab, true, 2));
  Floats ties = random_floats(vocab, 1.0f, 3);
  for (float& value : ties) value = std::round(value);
  kinds.push_back(ties);
  kinds.push_back(Floats(vocab, -0.0f));
  Floats extremes = random_floats(vocab, 1.0f, 4);
  for (float& value : extremes) value = std::copysign(std::numeric_limits<float>::max(), value);
  kinds.push_back(extremes);
  Floats ascending(vocab), descending(vocab);
  for (std::int64_t id = 0; id < vocab; ++id) {
    ascending[id] = static_cast<float>(id) * 0.01f;
    descending[id] = -ascending[id];
  }
  kinds.push_back(ascending);
  kinds.push_back(descending);
  return kinds;
}

TEST(TopLogProbs, SameBitsEverywhereAndAlone) {
  for (const std::int64_t vocab : {1, 3, 15, 16, 50, 64, 257, 1029, 8192}) {
    Floats logits;
    for (const Floats& row : rows_of_every_kind(vocab)) {
      logits.insert(logits.end(), row.begin(), row.end());
    }
    const auto rows = static_cast<std::int64_t>(logits.size()) / vocab;
    for (const std::int32_t k : {1, 50, 64}) {
      Top expected(rows, k);
      reference::top_log_probs(params_of(logits, vocab, k, expected));
      on_every_cpu([&](const cpu::RowOps& ops, ThreadPool& pool) {
        Top top(rows, k);
        cpu::top_log_probs(params_of(logits, vocab, k, top), ops, pool);
        EXPECT_EQ(top.counts, expected.counts);
        EXPECT_EQ(top.ids, expected.ids);
        expect_same_bits(top.log_probs, expected.log_probs);
        const Floats last(logits.end() - vocab, logits.end());
        Top alone(1, k);
        cpu::top_log_probs(params_of(last, vocab, k, alone), ops, pool);
        EXPECT_EQ(alone.ids, Ids(expected.ids.end() - k, expected.ids.end()));
        expect_same_bits(alone.log_probs,
                         Floats(expected.log_probs.end() - k, expected.log_probs.end()));
      });
    }
  }
}

TEST(TopLogProbs, RefusesMoreThanItsRoom) {
  const Floats logits = {1, 2};
  for (const std::int32_t k : {0, kMaxTopLogProbs + 1}) {
    Top top(1, 100);
    const TopLogProbsParams params = params_of(logits, 2, k, top);
    EXPECT_THROW(reference::top_log_probs(params), FatalError);
    on_every_cpu([&](const cpu::RowOps& ops, ThreadPool& pool) {
      EXPECT_THROW(cpu::top_log_probs(params, ops, pool), FatalError);
    });
  }
}

}  // namespace
}  // namespace paceline::kernels
