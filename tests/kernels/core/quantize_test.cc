#include "kernels/core/quantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace paceline::kernels {
namespace {

using ::testing::ElementsAre;

struct Quantized {
  std::vector<std::int8_t> q;
  float scale = 0;
  std::int32_t sum = 0;
};

Quantized quantize(const std::vector<float>& in, int group) {
  Quantized result;
  result.q.resize(static_cast<std::size_t>(group));
  result.scale =
      quantize_group(in.data(), static_cast<int>(in.size()), group, result.q.data(), result.sum);
  return result;
}

TEST(Quantize, ScalesTheLargestMagnitudeTo127) {
  const Quantized result = quantize({1, -2, 0.5f}, 4);
  EXPECT_THAT(result.q, ElementsAre(64, -127, 32, 0));
  EXPECT_EQ(result.scale, 2.0f / 127.0f);
  EXPECT_EQ(result.sum, -31);
}

TEST(Quantize, RoundsTiesToEven) {
  EXPECT_THAT(quantize({127, 0.5f, 1.5f, 2.5f, -0.5f, -3.5f}, 6).q,
              ElementsAre(127, 0, 2, 2, 0, -4));
}

TEST(Quantize, CountsWhatIsTinyAsZero) {
  const Quantized tiny = quantize({9e-31f, -1e-40f}, 2);
  EXPECT_THAT(tiny.q, ElementsAre(0, 0));
  EXPECT_EQ(tiny.scale, 0.0f);
  EXPECT_THAT(quantize({2e-30f, -1e-30f}, 2).q, ElementsAre(127, -64));
}

TEST(Quantize, TakesTheLargestFloat) {
  const float largest = std::numeric_limits<float>::max();
  const Quantized result = quantize({largest, -largest / 2}, 2);
  EXPECT_THAT(result.q, ElementsAre(127, -64));
  EXPECT_EQ(result.scale, largest / 127.0f);
}

TEST(Quantize, PoisonsAGroupThatIsNotFinite) {
  for (float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                    std::nanf("")}) {
    const Quantized result = quantize({1, bad, 2}, 4);
    EXPECT_TRUE(std::isnan(result.scale));
    EXPECT_THAT(result.q, ElementsAre(0, 0, 0, 0));
    EXPECT_EQ(result.sum, 0);
  }
}

}  // namespace
}  // namespace paceline::kernels
