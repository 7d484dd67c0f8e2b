#include <gtest/gtest.h>
#include <test_device.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/cuda/ops.h"
#include "kernels/reference/ops.h"
#include "tests/kernels/every_cpu.h"

namespace paceline::kernels {
namespace {

using Floats = std::vector<float>;
using Ids = std::vector<std::int32_t>;

struct Top {
  Ids ids, counts;
  Floats log_probs;
  Top(std::int64_t rows, std::int32_t k)
      : ids(rows * k, -1), counts(rows, -1), log_probs(rows * k, 0.0f) {}
};

TopLogProbsParams params_of(const Floats& logits, std::int64_t vocab, std::int32_t k, Top& top) {
  return {.logits = logits.data(),
          .ids = top.ids.data(),
          .log_probs = top.log_probs.data(),
          .counts = top.counts.data(),
          .rows = static_cast<std::int64_t>(top.counts.size()),
          .vocab = vocab,
          .k = k};
}

/// Checks that the kernel finds what the reference does, in every order.
void expect_same(const Floats& logits, std::int64_t vocab, std::int32_t k) {
  const std::int64_t rows = static_cast<std::int64_t>(logits.size()) / vocab;
  Top expected(rows, k);
  reference::top_log_probs(params_of(logits, vocab, k, expected));
  in_every_order([&] {
    Top top(rows, k);
    cuda::top_log_probs(params_of(logits, vocab, k, top), nullptr);
    EXPECT_EQ(top.counts, expected.counts);
    EXPECT_EQ(top.ids, expected.ids);
    expect_same_bits(top.log_probs, expected.log_probs);
  });
}

// Random logits; many equal ones; the largest and the smallest numbers; rows in both orders.
TEST(CudaTopLogProbs, SameBits) {
  for (const std::int64_t vocab : {1, 3, 16, 50, 64, 257, 1029, 8192}) {
    SCOPED_TRACE(vocab);
    Floats logits;
    const auto add = [&](const Floats& row) {
      logits.insert(logits.end(), row.begin(), row.end());
    };
    add(random_floats(vocab, 4.0f, 1));
    add(awkward_floats(vocab, true, 2));
    Floats ties = random_floats(vocab, 1.0f, 3);
    for (float& value : ties) value = std::round(value);
    add(ties);
    add(Floats(vocab, -0.0f));
    Floats extremes = random_floats(vocab, 1.0f, 4);
    for (float& value : extremes) value = std::copysign(std::numeric_limits<float>::max(), value);
    add(extremes);
    Floats ascending(vocab);
    for (std::int64_t id = 0; id < vocab; ++id) ascending[id] = static_cast<float>(id) * 0.01f;
    add(ascending);
    add(Floats(ascending.rbegin(), ascending.rend()));
    for (const std::int32_t k : {1, 50, 64}) expect_same(logits, vocab, k);
  }
}

TEST(CudaTopLogProbs, ARowThatIsNotFiniteKeepsNone) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  expect_same({1, kNan, 1, 2, kInfinity, 0, -kInfinity, 1}, 2, 2);
}

TEST(CudaTopLogProbs, NoVocabularyKeepsNone) {
  Top top(2, 3);
  cuda::top_log_probs(params_of({}, 0, 3, top), nullptr);
  EXPECT_EQ(top.counts, (Ids{0, 0}));
}

TEST(CudaTopLogProbs, RefusesMoreThanItsRoom) {
  const Floats logits = {1, 2};
  for (const std::int32_t k : {0, kMaxTopLogProbs + 1}) {
    Top top(1, 100);
    EXPECT_THROW(cuda::top_log_probs(params_of(logits, 2, k, top), nullptr), FatalError);
  }
}

}  // namespace
}  // namespace paceline::kernels
