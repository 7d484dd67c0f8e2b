#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <fstream>
#include <limits>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/cpu/amx_tiles.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/linear_kernels.h"

// The products in tiles are tested with all others, in linear_test.cc: on machines without AMX by
// the emulated instructions, which are tested here.

namespace paceline::kernels::cpu {
namespace {

bool amx_here() {
  for (Isa isa : supported_isas()) {
    if (isa == Isa::kAmx) return true;
  }
  return false;
}

struct Shape {
  std::uint8_t rows;
  std::uint16_t row_bytes;
};

// Tile 0, the sum, has one shape, tiles 1 and 2 have others.
TileConfig config(Shape sum, Shape a, Shape b) {
  TileConfig made;
  made.rows = {sum.rows, a.rows, b.rows};
  made.row_bytes = {sum.row_bytes, a.row_bytes, b.row_bytes};
  return made;
}

using Outputs = std::array<std::array<std::int32_t, 2>, 2>;

// 2 rows of 8 inputs by 2 outputs, added to `sums` twice.
template <typename Tiles>
Outputs add_twice(Outputs sums) {
  constexpr std::int8_t kRows[2][8] = {{1, -2, 3, -4, 5, -6, 7, -8}, {-128, 127, 0, 0, 0, 0, 0, 1}};
  // Output 0 adds up, output 1 weighs inputs 0, 3 and 4. Bytes: inputs 0-3 of output 0, 0-3 of
  // output 1; in the next row inputs 4-7.
  constexpr std::uint8_t kWeights[2][8] = {{1, 1, 1, 1, 255, 0, 0, 255}, {1, 1, 1, 1, 2, 0, 0, 0}};
  const TileConfig shapes = config({2, 8}, {2, 8}, {2, 8});
  const ConfiguredTiles<Tiles> configured(shapes);
  Tiles::template load<0>(sums.data(), 8);
  Tiles::template load<1>(kRows, 8);
  Tiles::template load<2>(kWeights, 8);
  Tiles::template multiply_signed_unsigned<0, 1, 2>();
  Tiles::template multiply_signed_unsigned<0, 1, 2>();
  Tiles::template store<0>(sums.data(), 8);
  return sums;
}

template <typename Tiles>
void expect_worked_example() {
  // 1 - 2 + 3 - 4 + 5 - 6 + 7 - 8 = -4; 255 * 1 + 255 * -4 + 2 * 5 = -755;
  // -128 + 127 + 1 = 0; 255 * -128 = -32640.
  EXPECT_EQ(add_twice<Tiles>({{{0, 0}, {0, 0}}}), (Outputs{{{-8, -1510}, {0, -65280}}}));
  EXPECT_EQ(add_twice<Tiles>({{{100, 2000}, {7, 65281}}}), (Outputs{{{92, 490}, {7, 1}}}));
  // Sums wrap, they do not saturate.
  constexpr std::int32_t kMost = std::numeric_limits<std::int32_t>::max();
  constexpr std::int32_t kLeast = std::numeric_limits<std::int32_t>::min();
  EXPECT_EQ(add_twice<Tiles>({{{kLeast, 0}, {0, kLeast}}}),
            (Outputs{{{kMost - 7, -1510}, {0, kMost - 65279}}}));
}

// Whole tiles of every byte there is, 64 inputs and 32, rows at a distance.
template <typename Tiles>
std::vector<std::int32_t> multiply_random(int inputs, unsigned seed) {
  std::mt19937 random(seed);
  constexpr std::size_t kStride = 192;
  std::vector<std::uint8_t> a(16 * kStride);
  std::vector<std::uint8_t> b(16 * kStride);
  for (std::uint8_t& byte : a) byte = static_cast<std::uint8_t>(random());
  for (std::uint8_t& byte : b) byte = static_cast<std::uint8_t>(random());
  std::vector<std::int32_t> sums(16 * kStride / 4, 12345);
  const TileConfig shapes = config({16, 64}, {16, static_cast<std::uint16_t>(inputs)},
                                   {static_cast<std::uint8_t>(inputs / 4), 64});
  const ConfiguredTiles<Tiles> configured(shapes);
  Tiles::template zero<0>();
  Tiles::template load<1>(a.data(), kStride);
  Tiles::template load<2>(b.data(), kStride);
  Tiles::template multiply_signed_unsigned<0, 1, 2>();
  Tiles::template store<0>(sums.data(), kStride);
  return sums;
}

TEST(EmulatedTiles, DoTheWorkedExample) { expect_worked_example<EmulatedTiles>(); }

TEST(EmulatedTiles, TouchNoMoreThanTheirShape) {
  const std::vector<std::int32_t> sums = multiply_random<EmulatedTiles>(64, 1);
  for (std::size_t i = 0; i < sums.size(); ++i) {
    if (i % 48 < 16) continue;
    EXPECT_EQ(sums[i], 12345) << i;
  }
  EXPECT_NE(sums[0], 12345);
  EXPECT_NE(sums[15 * 48 + 15], 12345);
}

TEST(EmulatedTiles, ConfiguringClears) {
  Outputs sums = {{{1, 2}, {3, 4}}};
  const TileConfig shapes = config({2, 8}, {2, 8}, {2, 8});
  EmulatedTiles::configure(shapes);
  EmulatedTiles::load<0>(sums.data(), 8);
  EmulatedTiles::configure(shapes);
  EmulatedTiles::store<0>(sums.data(), 8);
  EmulatedTiles::release();
  EXPECT_EQ(sums, (Outputs{{{0, 0}, {0, 0}}}));
}

TEST(EmulatedTiles, RefuseWhatTheProcessorRefuses) {
  EXPECT_THROW(EmulatedTiles::zero<0>(), FatalError);  // not configured
  EXPECT_THROW(EmulatedTiles::configure(config({17, 64}, {16, 64}, {16, 64})), FatalError);
  EXPECT_THROW(EmulatedTiles::configure(config({16, 65}, {16, 64}, {16, 64})), FatalError);
  EXPECT_THROW(EmulatedTiles::configure(config({16, 0}, {16, 64}, {16, 64})), FatalError);
  TileConfig ninth = config({16, 64}, {16, 64}, {16, 64});
  ninth.rows[8] = 1;
  ninth.row_bytes[8] = 4;
  EXPECT_THROW(EmulatedTiles::configure(ninth), FatalError);
  // 32 inputs need 8 rows of weights; rows of activations and of sums are the same.
  for (const TileConfig& shapes :
       {config({16, 64}, {16, 32}, {16, 64}), config({16, 64}, {15, 64}, {16, 64}),
        config({16, 64}, {16, 64}, {16, 60})}) {
    const ConfiguredTiles<EmulatedTiles> configured(shapes);
    EXPECT_THROW((EmulatedTiles::multiply_signed_unsigned<0, 1, 2>()), FatalError);
  }
}

TEST(HardwareTiles, DoAsTheEmulatedOnes) {
  if (!amx_here()) GTEST_SKIP() << "no AMX here";
  expect_worked_example<HardwareTiles>();
  for (int inputs : {32, 64}) {
    EXPECT_EQ(multiply_random<HardwareTiles>(inputs, 2), multiply_random<EmulatedTiles>(inputs, 2));
  }
}

TEST(Amx, IsThereOnlyWhereTheSystemSaysSo) {
  std::ifstream file("/proc/cpuinfo");
  std::stringstream all;
  all << file.rdbuf();
  const bool listed = all.str().find(" amx_int8") != std::string::npos;
  EXPECT_LE(amx_here(), listed);  // a system may have it and not give it to us
  if (!amx_here()) {
    EXPECT_THROW(select_isa("amx"), ConfigError);
  }
}

TEST(Amx, TakesOverWhereTilesAreFull) {
  const LinearKernels& kernels = amx::linear_kernels();
  for (WeightFormat format :
       {WeightFormat::kInt8Channel, WeightFormat::kInt8Group, WeightFormat::kInt4Group}) {
    EXPECT_EQ(&kernels.of(format, 15), &kernels);
    EXPECT_EQ(&kernels.of(format, 16), kernels.tiles);
  }
  EXPECT_EQ(&kernels.of(WeightFormat::kBf16, 1000), &kernels);
  EXPECT_EQ(kernels.multiply, avx512bf16::linear_kernels().multiply);
  EXPECT_NE(kernels.tiles->multiply, kernels.multiply);
}

}  // namespace
}  // namespace paceline::kernels::cpu
