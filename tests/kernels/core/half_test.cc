#include "kernels/core/half.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

namespace paceline::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(Half, Bf16KeepsTheUpperHalfOfTheBits) {
  EXPECT_EQ(bf16_to_fp32(0x3f80), 1.0f);
  EXPECT_EQ(fp32_to_bf16(-2.0f), 0xc000);
  EXPECT_EQ(fp32_to_bf16(kInfinity), 0x7f80);
  EXPECT_TRUE(std::isnan(bf16_to_fp32(fp32_to_bf16(std::bit_cast<float>(0x7f800001u)))));
}

TEST(Half, Bf16RoundsTiesToEven) {
  EXPECT_EQ(fp32_to_bf16(std::bit_cast<float>(0x3f808000u)), 0x3f80);
  EXPECT_EQ(fp32_to_bf16(std::bit_cast<float>(0x3f808001u)), 0x3f81);
  EXPECT_EQ(fp32_to_bf16(std::bit_cast<float>(0x3f818000u)), 0x3f82);
  EXPECT_EQ(fp32_to_bf16(std::numeric_limits<float>::max()), 0x7f80);
}

TEST(Half, Fp16WorkedExamples) {
  EXPECT_EQ(fp16_to_fp32(0x3c00), 1.0f);
  EXPECT_EQ(fp16_to_fp32(0x7bff), 65504.0f);
  EXPECT_EQ(fp16_to_fp32(0x0001), 0x1p-24f);
  EXPECT_EQ(fp16_to_fp32(0x8400), -0x1p-14f);
  EXPECT_EQ(fp32_to_fp16(0.1f), 0x2e66);
  EXPECT_EQ(fp32_to_fp16(65519.0f), 0x7bff);
  EXPECT_EQ(fp32_to_fp16(65520.0f), 0x7c00);
  EXPECT_EQ(fp32_to_fp16(0x1p-25f), 0x0000) << "half of the smallest: a tie, to even";
  EXPECT_EQ(fp32_to_fp16(0x1.002p-25f), 0x0001);
  EXPECT_EQ(fp32_to_fp16(-0x1.8p-24f), 0x8002);
  EXPECT_EQ(fp32_to_fp16(1.0f + 0x1p-11f), 0x3c00) << "a tie, to even";
  EXPECT_EQ(fp32_to_fp16(1.0f + 0x3p-11f), 0x3c02) << "a tie, to even";
}

TEST(Half, EveryHalfSurvivesTheWayThereAndBack) {
  for (unsigned bits = 0; bits <= 0xffff; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float fp16 = fp16_to_fp32(half);
    const float bf16 = bf16_to_fp32(half);
    if (std::isnan(fp16)) {
      EXPECT_TRUE(std::isnan(fp16_to_fp32(fp32_to_fp16(fp16))));
    } else {
      ASSERT_EQ(fp32_to_fp16(fp16), half);
    }
    if (std::isnan(bf16)) {
      EXPECT_TRUE(std::isnan(bf16_to_fp32(fp32_to_bf16(bf16))));
    } else {
      ASSERT_EQ(fp32_to_bf16(bf16), half);
    }
  }
}

TEST(Half, RoundsToTheNearerNeighbour) {
  // Between every two neighbouring finite fp16 values: just below and just above the middle.
  for (unsigned bits = 0; bits < 0x7bff; ++bits) {
    const auto low = static_cast<std::uint16_t>(bits);
    const auto high = static_cast<std::uint16_t>(bits + 1);
    const float middle = (fp16_to_fp32(low) + fp16_to_fp32(high)) / 2;
    ASSERT_EQ(fp32_to_fp16(std::nextafter(middle, 0.0f)), low);
    ASSERT_EQ(fp32_to_fp16(middle), bits % 2 == 0 ? low : high);
    ASSERT_EQ(fp32_to_fp16(std::nextafter(middle, kInfinity)), high);
  }
}

}  // namespace
}  // namespace paceline::kernels
