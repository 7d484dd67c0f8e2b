#include <gtest/gtest.h>

#include <cmath>

#include "kernels/core/error.h"
#include "kernels/core/exact_math.h"
#include "kernels/cpu/ops.h"
#include "kernels/reference/ops.h"
#include "tests/kernels/activate_terms.h"
#include "tests/kernels/every_cpu.h"

namespace paceline::kernels {
namespace {

using Floats = std::vector<float>;

TEST(SumPartials, AddsAlongTheTree) {
  // (p0 + (p1 + p2)) + p3: 1e8 swallows what is added to it alone, but not 3 + 5.
  const Floats partials = {1e8f, 3, 5, 2};
  const std::vector<int> merges = {0, 0, 2, 1};
  const Floats residual = {100};
  Floats out(1);
  reference::sum_partials({.partials = partials.data(),
                           .merges = merges,
                           .size = 1,
                           .residual = residual.data(),
                           .out = out.data()});
  EXPECT_EQ(out[0], 100.0f + ((1e8f + 8.0f) + 2.0f));
}

TEST(SumPartials, SameBitsEverywhere) {
  const std::vector<int> merges = {0, 1, 0, 2, 0, 1, 0, 3};
  for (const std::int64_t size : {1, 7, 15, 16, 33, 1000, 70001}) {
    const Floats partials = awkward_floats(merges.size() * size, false, 1);
    const Floats residual = awkward_floats(size, false, 2);
    for (const bool with_residual : {false, true}) {
      SumPartialsParams params{.partials = partials.data(),
                               .merges = merges,
                               .size = size,
                               .residual = with_residual ? residual.data() : nullptr};
      Floats expected(size);
      params.out = expected.data();
      reference::sum_partials(params);
      on_every_cpu([&](const cpu::RowOps& ops, ThreadPool& pool) {
        Floats out = residual;  // out may be the residual
        params.residual = with_residual ? out.data() : nullptr;
        params.out = out.data();
        cpu::sum_partials(params, ops, pool);
        expect_same_bits(out, expected);
      });
    }
  }
}

TEST(SumPartials, RefusesMergesThatDoNotAddUp) {
  const Floats partials(4);
  Floats out(1);
  for (const std::vector<int>& merges : {std::vector<int>{0, 0}, {1}, {0, 2}, {0, -1}, {}}) {
    const SumPartialsParams params{
        .partials = partials.data(), .merges = merges, .size = 1, .out = out.data()};
    EXPECT_THROW(reference::sum_partials(params), FatalError);
    on_every_cpu([&](const cpu::RowOps& ops, ThreadPool& pool) {
      EXPECT_THROW(cpu::sum_partials(params, ops, pool), FatalError);
    });
  }
}

TEST(RmsNorm, AWorkedExample) {
  const Floats in = {3, 4}, weight = {2, 1};
  Floats out(2);
  reference::rms_norm({.in = in.data(),
                       .weight = weight.data(),
                       .eps = 0,
                       .out = out.data(),
                       .rows = 1,
                       .width = 2});
  const float scale = 1.0f / std::sqrt(12.5f);
  EXPECT_EQ(out, (Floats{3 * scale * 2, 4 * scale}));
}

TEST(RmsNorm, SameBitsEverywhereAndAlone) {
  for (const std::int64_t width : {1, 8, 15, 16, 17, 31, 64, 576, 1000}) {
    for (const bool finite : {true, false}) {
      constexpr std::int64_t kRows = 37;
      Floats in = awkward_floats(kRows * width, finite, 3);
      for (float& value : in) {
        if (finite && std::fabs(value) > 1e17f) value = 1;  // whose squares overflow
      }
      const Floats weight = awkward_floats(width, finite, 4);
      RmsNormParams params{
          .in = in.data(), .weight = weight.data(), .eps = 1e-5f, .rows = kRows, .width = width};
      Floats expected(kRows * width);
      params.out = expected.data();
      reference::rms_norm(params);
      on_every_cpu([&](const cpu::RowOps& ops, ThreadPool& pool) {
        Floats out(kRows * width);
        params.out = out.data();
        params.in = in.data();
        params.rows = kRows;
        cpu::rms_norm(params, ops, pool);
        expect_same_bits(out, expected);
        // The last row without the others.
        Floats alone(width);
        params.out = alone.data();
        params.in = in.data() + (kRows - 1) * width;
        params.rows = 1;
        cpu::rms_norm(params, ops, pool);
        expect_same_bits(alone, Floats(expected.end() - width, expected.end()));
      });
    }
  }
}

TEST(SiluMul, IsCloseToTheFormula) {
  const Floats gate = {-80, -3, -0.5, 0, 0.5, 3, 100}, up = {1, 2, 3, 4, 5, 6, 7};
  Floats out(7);
  reference::silu_mul(gate.data(), up.data(), out.data(), 7);
  for (int i = 0; i < 7; ++i) {
    const double exact_value = gate[i] / (1 + std::exp(-double{gate[i]})) * up[i];
    EXPECT_NEAR(out[i], exact_value, 3e-7 * std::fabs(exact_value));
  }
}

TEST(SiluMul, SameBitsEverywhere) {
  for (const std::int64_t count : {1, 16, 23, 1536}) {
    const Floats gate = awkward_floats(count, false, 5), up = awkward_floats(count, false, 6);
    Floats expected(count);
    reference::silu_mul(gate.data(), up.data(), expected.data(), count);
    on_every_cpu([&](const cpu::RowOps& ops, ThreadPool&) {
      Floats out(count);
      ops.silu_mul(gate.data(), up.data(), out.data(), count);
      expect_same_bits(out, expected);
    });
  }
}

// The vector exp, through the one op that shows it: up = 1 and a large gate leave 1 + exp(-gate).
TEST(SiluMul, VectorExpIsTheScalarOne) {
  constexpr std::int64_t kCount = 400'000;
  const Floats up(kCount, 1.0f);
  Floats gate(kCount), expected(kCount);
  for (std::int64_t i = 0; i < kCount; ++i) {
    gate[i] = static_cast<float>(i) * 0.0005f - 110.0f;
    expected[i] = gate[i] / (1.0f + exact::exp(-gate[i]));
  }
  on_every_cpu([&](const cpu::RowOps& ops, ThreadPool&) {
    Floats out(kCount);
    ops.silu_mul(gate.data(), up.data(), out.data(), kCount);
    expect_same_bits(out, expected);
  });
}

TEST(GatherRows, TakesRowsInAnyOrder) {
  const Floats in = {1, 2, 3, 4, 5, 6};
  const std::vector<std::int32_t> index = {2, 0, 2};
  Floats out(6);
  GatherRowsParams params{
      .in = in.data(), .index = index.data(), .out = out.data(), .rows = 3, .width = 2};
  reference::gather_rows(params);
  EXPECT_EQ(out, (Floats{5, 6, 1, 2, 5, 6}));
  on_every_cpu([&](const cpu::RowOps& ops, ThreadPool& pool) {
    std::fill(out.begin(), out.end(), 0.0f);
    cpu::gather_rows(params, ops, pool);
    EXPECT_EQ(out, (Floats{5, 6, 1, 2, 5, 6}));
  });
}

TEST(JoinRows, PutsAChosenRowBeforeEachRow) {
  const Floats left = {1, 2, 3, 4}, right = {10, 20, 30};
  const std::vector<std::int32_t> index = {1, 0, 1};
  const Floats expected = {3, 4, 10, 1, 2, 20, 3, 4, 30};
  Floats out(9);
  JoinRowsParams params{.left = left.data(),
                        .left_index = index.data(),
                        .right = right.data(),
                        .out = out.data(),
                        .rows = 3,
                        .left_width = 2,
                        .right_width = 1};
  reference::join_rows(params);
  EXPECT_EQ(out, expected);
  on_every_cpu([&](const cpu::RowOps& ops, ThreadPool& pool) {
    std::fill(out.begin(), out.end(), 0.0f);
    cpu::join_rows(params, ops, pool);
    EXPECT_EQ(out, expected);
  });
}

// Two ranks' logits, the second's behind the first's; what stands elsewhere is left alone.
TEST(PlaceColumns, PutsABlockIntoAWiderMatrix) {
  const Floats in = {1, 2, 3, 4};
  const Floats expected = {0, 1, 2, 0, 3, 4};
  Floats out(6);
  const PlaceColumnsParams params{
      .in = in.data(), .out = out.data(), .first = 1, .out_width = 3, .rows = 2, .width = 2};
  reference::place_columns(params);
  EXPECT_EQ(out, expected);
  on_every_cpu([&](const cpu::RowOps& ops, ThreadPool& pool) {
    std::fill(out.begin(), out.end(), 0.0f);
    cpu::place_columns(params, ops, pool);
    EXPECT_EQ(out, expected);
  });
}

// x + silu(y + b), the residual block of a ReDrafter head.
TEST(Activate, AWorkedExample) {
  const Floats y = {0.5, -3, 2, 0}, bias = {0.5, 1}, x = {10, 20, 30, 40};
  Floats out(4);
  reference::activate({.in = y.data(),
                       .bias = bias.data(),
                       .residual = x.data(),
                       .activation = Activation::kSilu,
                       .out = out.data(),
                       .rows = 2,
                       .width = 2});
  const auto silu = [](double v) { return v / (1 + std::exp(-v)); };
  EXPECT_FLOAT_EQ(out[0], static_cast<float>(10 + silu(1)));
  EXPECT_FLOAT_EQ(out[1], static_cast<float>(20 + silu(-2)));
  EXPECT_FLOAT_EQ(out[2], static_cast<float>(30 + silu(2.5)));
  EXPECT_FLOAT_EQ(out[3], static_cast<float>(40 + silu(1)));
  reference::activate(
      {.in = y.data(), .addend = x.data(), .out = out.data(), .rows = 2, .width = 2});
  EXPECT_EQ(out, (Floats{10.5, 17, 32, 40}));
}

TEST(Activate, SameBitsEverywhereAndInPlace) {
  constexpr std::int64_t kRows = 7;
  for (const std::int64_t width : {1, 16, 23, 1536}) {
    const ActivateTerms given(kRows, width);
    for (int terms = 0; terms < ActivateTerms::kChoices; ++terms) {
      ActivateParams params = given.params(terms);
      Floats expected(kRows * width);
      params.out = expected.data();
      reference::activate(params);
      on_every_cpu([&](const cpu::RowOps& ops, ThreadPool& pool) {
        Floats out = given.in;
        params.in = out.data();
        params.out = out.data();
        cpu::activate(params, ops, pool);
        expect_same_bits(out, expected);
      });
    }
  }
}

TEST(TokenLogProbs, AWorkedExample) {
  const Floats logits = {std::log(1.0f), std::log(2.0f), std::log(5.0f)};
  const std::vector<std::int32_t> targets = {1};
  double log_prob = 0;
  reference::token_log_probs({.logits = logits.data(),
                              .targets = targets.data(),
                              .log_probs = &log_prob,
                              .rows = 1,
                              .vocab = 3});
  EXPECT_NEAR(log_prob, std::log(2.0 / 8.0), 1e-7);
}

TEST(TokenLogProbs, SameBitsEverywhere) {
  for (const std::int64_t vocab : {1, 15, 16, 100, 1029}) {
    constexpr std::int64_t kRows = 6;
    Floats logits = awkward_floats(kRows * vocab, true, 6);
    logits[2 * vocab] = std::numeric_limits<float>::infinity();
    logits[4 * vocab - 1] = std::numeric_limits<float>::quiet_NaN();
    std::vector<std::int32_t> targets(kRows);
    for (int row = 0; row < kRows; ++row) targets[row] = static_cast<int>(row * 97 % vocab);
    TokenLogProbsParams params{
        .logits = logits.data(), .targets = targets.data(), .rows = kRows, .vocab = vocab};
    std::vector<double> expected(kRows);
    params.log_probs = expected.data();
    reference::token_log_probs(params);
    EXPECT_TRUE(std::isnan(expected[2]));
    EXPECT_TRUE(std::isnan(expected[3]));
    EXPECT_FALSE(std::isnan(expected[5]));
    on_every_cpu([&](const cpu::RowOps& ops, ThreadPool& pool) {
      std::vector<double> log_probs(kRows);
      params.log_probs = log_probs.data();
      cpu::token_log_probs(params, ops, pool);
      expect_same_bits(log_probs, expected);
    });
  }
}

TEST(TokenLogProbs, RefusesATargetBeyondTheVocabulary) {
  const Floats logits(4);
  double log_prob = 0;
  for (const std::int32_t target : {-1, 4}) {
    const TokenLogProbsParams params{
        .logits = logits.data(), .targets = &target, .log_probs = &log_prob, .rows = 1, .vocab = 4};
    EXPECT_THROW(reference::token_log_probs(params), FatalError);
    on_every_cpu([&](const cpu::RowOps& ops, ThreadPool& pool) {
      EXPECT_THROW(cpu::token_log_probs(params, ops, pool), FatalError);
    });
  }
}

}  // namespace
}  // namespace paceline::kernels
