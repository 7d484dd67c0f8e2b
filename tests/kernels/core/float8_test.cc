#include "kernels/core/float8.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

namespace paceline::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kLargestCode = 0x7e;

TEST(Float8, WorkedExamples) {
  EXPECT_EQ(fp8_to_fp32(0x38), 1.0f);
  EXPECT_EQ(fp8_to_fp32(0xb8), -1.0f);
  EXPECT_EQ(fp8_to_fp32(0x3c), 1.5f);
  EXPECT_EQ(fp8_to_fp32(0x7e), 448.0f);
  EXPECT_EQ(fp8_to_fp32(0x08), 0x1p-6f) << "the least normal number";
  EXPECT_EQ(fp8_to_fp32(0x07), 0x7p-9f);
  EXPECT_EQ(fp8_to_fp32(0x01), 0x1p-9f);
  EXPECT_EQ(fp32_to_fp8(0.1f), 0x1d) << "1.625 * 2^-4";
  EXPECT_EQ(fp32_to_fp8(1.0625f), 0x38) << "a tie, to even";
  EXPECT_EQ(fp32_to_fp8(1.1875f), 0x3a) << "a tie, to even";
  EXPECT_EQ(fp32_to_fp8(0x1p-10f), 0x00) << "half of the least: a tie, to even";
  EXPECT_EQ(fp32_to_fp8(0x1.8p-9f), 0x02) << "a tie, to even";
  EXPECT_EQ(fp32_to_fp8(-0x1.002p-10f), 0x81);
}

// As the specification writes it: (-1)^s 2^(e - 7) (1 + m / 8), or (-1)^s 2^-6 m / 8 where e is 0.
TEST(Float8, EveryCodeIsItsFormulaAndSurvivesTheWayThereAndBack) {
  for (int code = 0; code < 256; ++code) {
    const float value = fp8_to_fp32(static_cast<std::uint8_t>(code));
    const int exponent = code >> 3 & 15;
    const int mantissa = code & 7;
    if (exponent == 15 && mantissa == 7) {
      EXPECT_TRUE(std::isnan(value));
      EXPECT_EQ(fp32_to_fp8(value), 0x7f);
      continue;
    }
    const double magnitude =
        exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
    EXPECT_EQ(std::abs(value), magnitude);
    EXPECT_EQ(std::signbit(value), code >= 128);
    EXPECT_EQ(fp32_to_fp8(value), code);
  }
}

TEST(Float8, RoundsToTheNearerNeighbour) {
  for (int code = 0; code < kLargestCode; ++code) {
    const auto low = static_cast<std::uint8_t>(code);
    const auto high = static_cast<std::uint8_t>(code + 1);
    const float middle = (fp8_to_fp32(low) + fp8_to_fp32(high)) / 2;
    const std::uint8_t even = code % 2 == 0 ? low : high;
    EXPECT_EQ(fp32_to_fp8(std::nextafter(middle, 0.0f)), low);
    EXPECT_EQ(fp32_to_fp8(middle), even);
    EXPECT_EQ(fp32_to_fp8(std::nextafter(middle, kInfinity)), high);
    EXPECT_EQ(fp32_to_fp8(-middle), even | 0x80);
  }
}

TEST(Float8, Saturates) {
  for (const float value : {448.0f, 449.0f, 464.0f, 480.0f, 1e30f, kInfinity}) {
    EXPECT_EQ(fp32_to_fp8(value), 0x7e) << value;
    EXPECT_EQ(fp32_to_fp8(-value), 0xfe) << value;
  }
  EXPECT_EQ(fp32_to_fp8(std::bit_cast<float>(0xff800001u)), 0x7f) << "any NaN";
}

TEST(Float8, WhatIsTooSmallIsZeroWithItsSign) {
  for (const float value : {0.0f, 1e-45f, 1e-20f, 0x1.fffffep-11f}) {
    EXPECT_EQ(fp32_to_fp8(value), 0x00) << value;
    EXPECT_EQ(fp32_to_fp8(-value), 0x80) << value;
  }
}

}  // namespace
}  // namespace paceline::kernels
