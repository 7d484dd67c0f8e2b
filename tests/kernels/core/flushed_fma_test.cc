#include "kernels/core/flushed_fma.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <random>

#include "kernels/core/float_environment.h"
#include "kernels/core/half.h"

namespace paceline::kernels {
namespace {

std::uint32_t bits(float value) { return std::bit_cast<std::uint32_t>(value); }

TEST(FlushedFma, WorkedExamples) {
  EXPECT_EQ(flushed_fma(3, 5, 7), 22);
  EXPECT_EQ(flushed_fma(0x1p-100f, 1, 1), 1);
  EXPECT_EQ(flushed_fma(0x1p-63f, 0x1p-63f, 0), 0x1p-126f) << "the smallest that is kept";
  EXPECT_EQ(bits(flushed_fma(0x1p-63f, 0x1p-64f, 0)), bits(0.0f));
  EXPECT_EQ(bits(flushed_fma(-0x1p-63f, 0x1p-64f, 0)), bits(-0.0f));
  EXPECT_EQ(flushed_fma(1, 1, 0x1p-127f), 1) << "the sum before is flushed, too";
  EXPECT_EQ(flushed_fma(0x1p-130f, 0x1p100f, 0), 0) << "and so are the factors";
  EXPECT_TRUE(std::isnan(flushed_fma(0x1p-130f, INFINITY, 0)));
  EXPECT_EQ(bits(flushed_fma(-0.0f, 0.0f, 0.0f)), bits(0.0f)) << "-0 * 0 changes no zero";
  EXPECT_EQ(bits(flushed_fma(-0.0f, 0.0f, -0.0f)), bits(-0.0f));
}

// Just below the smallest normal number, denormals are twice as far apart as 24 bits are: what both
// round up to it is kept.
TEST(FlushedFma, RoundsBeforeItFlushes) {
  constexpr float kNext = 0x1p-126f + 0x1p-149f;
  EXPECT_EQ(flushed_fma(-0x1.4p-74f, 0x1p-75f, kNext), 0x1p-126f) << "2^-126 - 2^-151: a tie";
  EXPECT_EQ(flushed_fma(-0x1.2p-74f, 0x1p-75f, kNext), 0x1p-126f);
  EXPECT_EQ(flushed_fma(-0x1.6p-74f, 0x1p-75f, kNext), 0) << "up to denormals, not to 24 bits";
}

// Every x86-64 FMA does this while MXCSR asks for it: numbers of all sizes, and such that vanish.
TEST(FlushedFma, IsTheProcessorsWithDenormalsFlushed) {
  std::mt19937 random(1);
  const auto number = [&](unsigned exponent, unsigned spread) {
    return static_cast<std::uint32_t>(random() % 2 << 31 | (exponent + random() % spread) << 23 |
                                      (random() & 0x7fffff));
  };
  for (int i = 0; i < 300'000; ++i) {
    const bool vanishing = i % 3 != 0;
    const auto factor = [&] {
      return bf16_to_fp32(
          static_cast<std::uint16_t>(number(vanishing ? 62 : 0, vanishing ? 4 : 255) >> 16));
    };
    volatile float a = factor();
    volatile float b = factor();
    volatile float sum = std::bit_cast<float>(number(i % 3 == 1  ? 0
                                                     : vanishing ? 1
                                                                 : 0,
                                                     vanishing ? 3 : 255));
    if (vanishing && i % 2 == 0) sum = std::fma(-a, b, std::copysign(0x1p-126f, sum));
    volatile float expected = 0;
    {
      const FlushedDenormals flushed;
      expected = std::fma(a, b, sum);
    }
    const float actual = flushed_fma(a, b, sum);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(actual));
    } else {
      ASSERT_EQ(bits(actual), bits(expected)) << a << " * " << b << " + " << sum;
    }
  }
}

}  // namespace
}  // namespace paceline::kernels
