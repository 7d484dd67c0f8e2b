#include "kernels/core/host_matrix.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/core/half.h"

namespace paceline::kernels {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

template <typename T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(T));
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

template <typename T>
std::vector<T> values_of(const std::vector<std::byte>& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

HostMatrix fp32_matrix(std::int64_t rows, std::int64_t cols, const std::vector<float>& values) {
  return {WeightFormat::kFp32, rows, cols, bytes_of(values), {}, {}};
}

// 2 x 64: element (r, k) is q = (k + r) % 16 of a group with scale 2^-r and minimum -(group + 1).
HostMatrix int4_matrix() {
  HostMatrix matrix{WeightFormat::kInt4Group, 2, 64, {}, {}, {}};
  std::vector<std::uint8_t> values;
  for (int r = 0; r < 2; ++r) {
    for (int k = 0; k < 64; k += 2) {
      values.push_back(static_cast<std::uint8_t>((k + r) % 16 | (k + 1 + r) % 16 << 4));
    }
  }
  matrix.values = bytes_of(values);
  matrix.scales = bytes_of<std::uint16_t>({0x3c00, 0x3c00, 0x3800, 0x3800});    // 1, 1, 0.5, 0.5
  matrix.minimums = bytes_of<std::uint16_t>({0xbc00, 0xc000, 0xbc00, 0xc000});  // -1, -2, -1, -2
  return matrix;
}

float int4_element(int r, int k) {
  return static_cast<float>((k + r) % 16) * (r == 0 ? 1.0f : 0.5f) - static_cast<float>(k / 32 + 1);
}

TEST(HostMatrix, RowBytesOfEveryFormat) {
  const auto bytes = [](WeightFormat format) {
    const RowBytes row = row_bytes(format, 64);
    return std::vector<std::size_t>{row.values, row.scales, row.minimums};
  };
  EXPECT_THAT(bytes(WeightFormat::kFp32), ElementsAre(256, 0, 0));
  EXPECT_THAT(bytes(WeightFormat::kBf16), ElementsAre(128, 0, 0));
  EXPECT_THAT(bytes(WeightFormat::kFp16), ElementsAre(128, 0, 0));
  EXPECT_THAT(bytes(WeightFormat::kFp8), ElementsAre(64, 4, 0));
  EXPECT_THAT(bytes(WeightFormat::kInt8Channel), ElementsAre(64, 4, 0));
  EXPECT_THAT(bytes(WeightFormat::kInt8Group), ElementsAre(64, 4, 0));
  EXPECT_THAT(bytes(WeightFormat::kInt4Group), ElementsAre(32, 4, 4));
  EXPECT_THROW(row_bytes(WeightFormat::kInt4Group, 48), FatalError);
}

TEST(HostMatrix, WidensInt4) {
  const std::vector<float> values = to_fp32(int4_matrix());
  for (int r = 0; r < 2; ++r) {
    for (int k = 0; k < 64; ++k) EXPECT_EQ(values[r * 64 + k], int4_element(r, k));
  }
}

TEST(HostMatrix, WidensInt8) {
  HostMatrix matrix{WeightFormat::kInt8Channel, 2, 3, {}, {}, {}};
  matrix.values = bytes_of<std::int8_t>({1, -128, 3, 4, 5, 127});
  matrix.scales = bytes_of<float>({0.5f, 2.0f});
  EXPECT_THAT(to_fp32(matrix), ElementsAre(0.5f, -64, 1.5f, 8, 10, 254));
}

TEST(HostMatrix, Fp8HasAScaleForEachOutput) {
  // The largest of a row is 448 times its scale; 99.9 / 2 is nearer to 48 than to 52.
  const HostMatrix fp8 =
      convert(fp32_matrix(3, 3, {-896, 2, 99.9f, 448, -3, 0.001f, 0, 0, 0}), WeightFormat::kFp8);
  EXPECT_THAT(values_of<float>(fp8.scales), ElementsAre(2, 1, 0));
  EXPECT_THAT(values_of<std::uint8_t>(fp8.values),
              ElementsAre(0xfe, 0x38, 0x64, 0x7e, 0xc4, 0x01, 0, 0, 0));
  EXPECT_THAT(to_fp32(fp8), ElementsAre(-896, 2, 96, 448, -3, 0x1p-9f, 0, 0, 0));
}

TEST(HostMatrix, RefusesArraysOfTheWrongSize) {
  HostMatrix matrix = int4_matrix();
  matrix.scales.pop_back();
  EXPECT_THROW(to_fp32(matrix), FatalError);
  EXPECT_THROW(convert(matrix, WeightFormat::kFp32), FatalError);
}

TEST(HostMatrix, ConvertsToHalves) {
  const HostMatrix matrix = fp32_matrix(1, 3, {1.0f, -0.1f, 70000.0f});
  EXPECT_THAT(values_of<std::uint16_t>(convert(matrix, WeightFormat::kBf16).values),
              ElementsAre(0x3f80, 0xbdcd, 0x4789));
  EXPECT_THAT(values_of<std::uint16_t>(convert(matrix, WeightFormat::kFp16).values),
              ElementsAre(0x3c00, 0xae66, 0x7c00));
}

TEST(HostMatrix, ConvertsToInt8WithTheRowsLargestAt127) {
  const HostMatrix int8 =
      convert(fp32_matrix(2, 3, {1, -2, 0.5f, 0, 0, 0}), WeightFormat::kInt8Channel);
  EXPECT_THAT(values_of<std::int8_t>(int8.values), ElementsAre(64, -127, 32, 0, 0, 0));
  EXPECT_THAT(values_of<float>(int8.scales), ElementsAre(2.0f / 127.0f, 0.0f));
}

TEST(HostMatrix, ConvertsToQ8_0) {
  // 127 times a power of two: the scale is exact in fp16, so every value comes back.
  std::vector<float> values(64);
  for (int k = 0; k < 64; ++k) values[k] = static_cast<float>(k - 32) * (k < 32 ? 1.0f : 0.25f);
  values[0] = -127;
  values[63] = 127 * 0.25f;
  const HostMatrix q8 = convert(fp32_matrix(1, 64, values), WeightFormat::kInt8Group);
  EXPECT_THAT(values_of<std::uint16_t>(q8.scales), ElementsAre(0x3c00, 0x3400));
  EXPECT_THAT(to_fp32(q8), ElementsAreArray(values));
}

TEST(HostMatrix, ConvertsToQ4_1) {
  // 0.5 * (0..15) - 3: scale and minimum are exact in fp16.
  std::vector<float> values(32);
  for (int k = 0; k < 32; ++k) values[k] = 0.5f * static_cast<float>(k % 16) - 3.0f;
  const HostMatrix q4 = convert(fp32_matrix(1, 32, values), WeightFormat::kInt4Group);
  EXPECT_THAT(values_of<std::uint16_t>(q4.scales), ElementsAre(0x3800));
  EXPECT_THAT(values_of<std::uint16_t>(q4.minimums), ElementsAre(0xc200));
  EXPECT_THAT(values_of<std::uint8_t>(q4.values),
              ElementsAre(0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe, 0x10, 0x32, 0x54, 0x76,
                          0x98, 0xba, 0xdc, 0xfe));
  EXPECT_THAT(to_fp32(q4), ElementsAreArray(values));
}

TEST(HostMatrix, Q4_1ErrsByHalfAStepAtMost) {
  std::vector<float> values(320);
  for (int k = 0; k < 320; ++k) values[k] = std::sin(static_cast<float>(k * k)) * 0.1f + 0.03f;
  const HostMatrix q4 = convert(fp32_matrix(5, 64, values), WeightFormat::kInt4Group);
  const std::vector<float> back = to_fp32(q4);
  const auto scales = values_of<std::uint16_t>(q4.scales);
  for (int k = 0; k < 320; ++k) {
    const float step = fp16_to_fp32(scales[k / 32]);
    // fp16 moves the minimum and, 15 times over, the scale by up to 2^-11 of themselves.
    EXPECT_LE(std::abs(back[k] - values[k]), 0.5f * step + 0.2f * 0x1p-11f) << k;
  }
}

TEST(HostMatrix, ConstantGroupsComeBack) {
  const std::vector<float> values(32, -0.75f);
  const HostMatrix matrix = fp32_matrix(1, 32, values);
  EXPECT_THAT(to_fp32(convert(matrix, WeightFormat::kInt4Group)), Each(-0.75f));
  EXPECT_THAT(
      to_fp32(convert(fp32_matrix(1, 32, std::vector<float>(32)), WeightFormat::kInt8Group)),
      Each(0.0f));
}

TEST(HostMatrix, WhatIntegersCannotHoldIsRefused) {
  std::vector<float> values(32, 1.0f);
  values[5] = std::numeric_limits<float>::quiet_NaN();
  for (WeightFormat format :
       {WeightFormat::kInt8Channel, WeightFormat::kInt8Group, WeightFormat::kInt4Group}) {
    EXPECT_THROW(convert(fp32_matrix(1, 32, values), format), ConfigError);
  }
  values[5] = 1e30f;
  EXPECT_THROW(convert(fp32_matrix(1, 32, values), WeightFormat::kInt8Group), ConfigError);
  EXPECT_THROW(convert(fp32_matrix(1, 32, values), WeightFormat::kInt4Group), ConfigError);
}

TEST(HostMatrix, EmptyMatricesWork) {
  for (WeightFormat format :
       {WeightFormat::kFp32, WeightFormat::kBf16, WeightFormat::kFp16, WeightFormat::kInt8Channel,
        WeightFormat::kInt8Group, WeightFormat::kInt4Group}) {
    EXPECT_TRUE(to_fp32(convert(fp32_matrix(0, 32, {}), format)).empty());
    EXPECT_TRUE(to_fp32(convert(fp32_matrix(3, 0, {}), format)).empty());
  }
}

}  // namespace
}  // namespace paceline::kernels
