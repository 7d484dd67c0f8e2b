#include <gtest/gtest.h>
#include <test_device.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/core/exact_math.h"
#include "kernels/cuda/ops.h"
#include "kernels/reference/ops.h"
#include "tests/kernels/activate_terms.h"
#include "tests/kernels/every_cpu.h"

// The CUDA kernels against the reference; run on the CPU in several orders.

namespace paceline::kernels {
namespace {

using Floats = std::vector<float>;

TEST(CudaSumPartials, SameBits) {
  const std::vector<int> merges = {0, 1, 0, 2, 0, 1, 0, 3};
  for (const std::int64_t size : {0, 1, 255, 256, 257, 3000}) {
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
      in_every_order([&] {
        Floats out = residual;  // out may be the residual
        params.residual = with_residual ? out.data() : nullptr;
        params.out = out.data();
        cuda::sum_partials(params, nullptr);
        expect_same_bits(out, expected);
      });
    }
  }
}

// More elements than a launch has threads.
TEST(CudaSumPartials, ThreadsTakeSeveralElements) {
  const std::int64_t size = 4096 * 256 + 300;
  const std::vector<int> merges = {0};
  const Floats partials = random_floats(size, 1, 3);
  Floats out(size);
  cuda::sum_partials(
      {.partials = partials.data(), .merges = merges, .size = size, .out = out.data()}, nullptr);
  EXPECT_EQ(out, partials);
}

TEST(CudaSumPartials, RefusesMergesThatDoNotAddUp) {
  const Floats partials(65);
  Floats out(1);
  for (const std::vector<int>& merges :
       {std::vector<int>{0, 0}, {1}, {0, 2}, {0, -1}, {}, std::vector<int>(65, 0)}) {
    EXPECT_THROW(
        cuda::sum_partials(
            {.partials = partials.data(), .merges = merges, .size = 1, .out = out.data()}, nullptr),
        FatalError);
  }
}

TEST(CudaRmsNorm, SameBitsAndAlone) {
  for (const std::int64_t width : {1, 8, 15, 16, 17, 64, 576, 4096, 4097, 8200}) {
    for (const bool finite : {true, false}) {
      constexpr std::int64_t kRows = 5;
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
      in_every_order([&] {
        Floats out(kRows * width);
        params.in = in.data();
        params.out = out.data();
        params.rows = kRows;
        cuda::rms_norm(params, nullptr);
        expect_same_bits(out, expected);
        Floats alone(width);
        params.in = in.data() + (kRows - 1) * width;
        params.out = alone.data();
        params.rows = 1;
        cuda::rms_norm(params, nullptr);
        expect_same_bits(alone, Floats(expected.end() - width, expected.end()));
      });
    }
  }
}

TEST(CudaRopeTable, SameBits) {
  const std::vector<std::int32_t> positions = {0, 1, 17, 2047, 131071, 1000000};
  for (const int head_dim : {2, 64, 80}) {
    Floats inv_freq;
    for (int i = 0; i < head_dim / 2; ++i) {
      inv_freq.push_back(static_cast<float>(exact::pow(100000.0, -2.0 * i / head_dim)));
    }
    const std::size_t size = positions.size() * inv_freq.size();
    RopeTableParams params{.positions = positions.data(),
                           .inv_freq = inv_freq.data(),
                           .rows = static_cast<std::int64_t>(positions.size()),
                           .head_dim = head_dim};
    const auto table = [&](auto op) {
      Floats cos_and_sin(2 * size);
      params.cos = cos_and_sin.data();
      params.sin = cos_and_sin.data() + size;
      op(params);
      return cos_and_sin;
    };
    const Floats expected = table(reference::rope_table);
    in_every_order([&] {
      expect_same_bits(table([](const RopeTableParams& p) { cuda::rope_table(p, nullptr); }),
                       expected);
    });
  }
}

TEST(CudaGatherRows, TakesRowsInAnyOrder) {
  const Floats in = {1, 2, 3, 4, 5, 6};
  const std::vector<std::int32_t> index = {2, 0, 2};
  in_every_order([&] {
    Floats out(6);
    cuda::gather_rows(
        {.in = in.data(), .index = index.data(), .out = out.data(), .rows = 3, .width = 2},
        nullptr);
    EXPECT_EQ(out, (Floats{5, 6, 1, 2, 5, 6}));
  });
}

TEST(CudaJoinRows, PutsAChosenRowBeforeEachRow) {
  const Floats left = {1, 2, 3, 4}, right = {10, 20, 30};
  const std::vector<std::int32_t> index = {1, 0, 1};
  in_every_order([&] {
    Floats out(9);
    cuda::join_rows({.left = left.data(),
                     .left_index = index.data(),
                     .right = right.data(),
                     .out = out.data(),
                     .rows = 3,
                     .left_width = 2,
                     .right_width = 1},
                    nullptr);
    EXPECT_EQ(out, (Floats{3, 4, 10, 1, 2, 20, 3, 4, 30}));
  });
}

// Two ranks' logits, the second's behind the first's; what stands elsewhere is left alone.
TEST(CudaPlaceColumns, PutsABlockIntoAWiderMatrix) {
  const Floats in = {1, 2, 3, 4};
  const Floats expected = {0, 1, 2, 0, 3, 4};
  in_every_order([&] {
    Floats out(6);
    cuda::place_columns(
        {.in = in.data(), .out = out.data(), .first = 1, .out_width = 3, .rows = 2, .width = 2},
        nullptr);
    EXPECT_EQ(out, expected);
  });
}

TEST(CudaActivate, SameBitsInPlace) {
  constexpr std::int64_t kRows = 3;
  for (const std::int64_t width : {1, 23, 400}) {
    const ActivateTerms given(kRows, width);
    for (int terms = 0; terms < ActivateTerms::kChoices; ++terms) {
      ActivateParams params = given.params(terms);
      Floats expected(kRows * width);
      params.out = expected.data();
      reference::activate(params);
      in_every_order([&] {
        Floats out = given.in;
        params.in = out.data();
        params.out = out.data();
        cuda::activate(params, nullptr);
        expect_same_bits(out, expected);
      });
    }
  }
}

TEST(CudaTokenLogProbs, SameBits) {
  for (const std::int64_t vocab : {1, 15, 16, 100, 1029, 4096, 5003}) {
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
    in_every_order([&] {
      std::vector<double> log_probs(kRows);
      params.log_probs = log_probs.data();
      cuda::token_log_probs(params, nullptr);
      expect_same_bits(log_probs, expected);
    });
  }
}

TEST(CudaTokenLogProbs, TrapsOnATargetBeyondTheVocabulary) {
  const Floats logits(4);
  std::vector<double> log_prob(1);
  for (const std::vector<std::int32_t>& target : {std::vector<std::int32_t>{-1}, {4}}) {
    expect_trap([&] {
      cuda::token_log_probs({.logits = logits.data(),
                             .targets = target.data(),
                             .log_probs = log_prob.data(),
                             .rows = 1,
                             .vocab = 4},
                            nullptr);
    });
  }
}

TEST(CudaLaunch, OneThatTheDeviceRefusesIsFatal) {
  const Floats weight(1);
  // A row for each block, and more blocks than a grid has.
  EXPECT_THROW(
      cuda::rms_norm({.weight = weight.data(), .rows = std::int64_t{1} << 31, .width = 1}, nullptr),
      FatalError);
}

TEST(CudaLaunch, NoRowsAreNoWork) {
  cuda::rms_norm({}, nullptr);
  cuda::rope_append({}, nullptr);
  cuda::select_tokens({}, nullptr);
  cuda::compact_kv({}, nullptr);
}

}  // namespace
}  // namespace paceline::kernels
