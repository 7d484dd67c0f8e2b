#include "kernels/core/exact_math.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>

namespace paceline::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr double kDoubleInf = std::numeric_limits<double>::infinity();

// Distance in units of the last place of the exact value, rounded to T.
template <typename T>
double ulps(T got, long double exact) {
  const T rounded = static_cast<T>(exact);
  if (got == rounded) return 0;
  const T size = std::fabs(rounded);
  const T unit = std::nextafter(size, std::numeric_limits<T>::infinity()) - size;
  return static_cast<double>(std::fabs(static_cast<long double>(got) - exact) / unit);
}

TEST(ExactMath, FloatExpIsWithinOneUlpAndABit) {
  double worst = 0;
  for (float x = -104.0f; x < 88.72f; x += 0.00097f) {
    worst = std::max(worst, ulps(exact::exp(x), std::exp(static_cast<double>(x))));
  }
  EXPECT_LT(worst, 1.05);
}

TEST(ExactMath, FloatExpAtTheEdges) {
  EXPECT_EQ(exact::exp(0.0f), 1.0f);
  EXPECT_EQ(exact::exp(-0.0f), 1.0f);
  EXPECT_EQ(exact::exp(-kInf), 0.0f);
  EXPECT_EQ(exact::exp(kInf), kInf);
  EXPECT_EQ(exact::exp(88.8f), kInf);
  EXPECT_EQ(exact::exp(-1e30f), 0.0f);
  EXPECT_EQ(exact::exp(-103.2f), std::numeric_limits<float>::denorm_min());
  EXPECT_EQ(exact::exp(-110.0f), 0.0f);
  EXPECT_TRUE(std::isnan(exact::exp(std::numeric_limits<float>::quiet_NaN())));
}

TEST(ExactMath, DoubleExpIsWithinOneUlp) {
  double worst = 0;
  for (double x = -745; x < 709.7; x += 0.0037) {
    worst = std::max(worst, ulps(exact::exp(x), std::exp(static_cast<long double>(x))));
  }
  EXPECT_LT(worst, 1.0);
  EXPECT_EQ(exact::exp(0.0), 1.0);
  EXPECT_EQ(exact::exp(-kDoubleInf), 0.0);
  EXPECT_EQ(exact::exp(kDoubleInf), kDoubleInf);
  EXPECT_TRUE(std::isnan(exact::exp(std::numeric_limits<double>::quiet_NaN())));
}

TEST(ExactMath, LogIsWithinTwoUlp) {
  std::mt19937_64 random(1);
  double worst = 0;
  for (int i = 0; i < 300'000; ++i) {
    // Every exponent, then the neighbourhood of 1 and the open unit interval.
    const double any = std::bit_cast<double>(random() % 0x7ff0000000000000);
    const double near = 1.0 + (static_cast<double>(random() >> 11) * 0x1p-53 - 0.5) * 1e-3;
    const double unit = (static_cast<double>(random() >> 32) + 0.5) * 0x1p-32;
    for (const double x : {any, near, unit}) {
      if (x == 0) continue;
      worst = std::max(worst, ulps(exact::log(x), std::log(static_cast<long double>(x))));
    }
  }
  EXPECT_LT(worst, 1.5);
  EXPECT_EQ(exact::log(1.0), 0.0);
  EXPECT_EQ(exact::log(0.0), -kDoubleInf);
  EXPECT_EQ(exact::log(kDoubleInf), kDoubleInf);
  EXPECT_TRUE(std::isnan(exact::log(-1.0)));
}

TEST(ExactMath, SinAndCosAreWithinTwoUlp) {
  std::mt19937_64 random(2);
  double worst = 0;
  const auto compare = [&](double x) {
    const auto [sine, cosine] = exact::sin_cos(x);
    worst = std::max(worst, ulps(sine, std::sin(static_cast<long double>(x))));
    worst = std::max(worst, ulps(cosine, std::cos(static_cast<long double>(x))));
  };
  for (int i = 0; i < 300'000; ++i) {
    const double unit = static_cast<double>(random() >> 11) * 0x1p-53 - 0.5;
    compare(unit * 4);
    compare(unit * 4e6);
    compare(static_cast<float>(unit * 2e6));
  }
  // Next to the multiples of pi / 2, where the reduced argument is all cancellation.
  for (int n = 1; n < 1000; ++n) {
    const double x = n * 1.5707963267948966;
    compare(x);
    compare(static_cast<float>(x));
  }
  EXPECT_LT(worst, 2.0);
  EXPECT_EQ(exact::sin_cos(0.0).sin, 0.0);
  EXPECT_EQ(exact::sin_cos(0.0).cos, 1.0);
  EXPECT_TRUE(std::isnan(exact::sin_cos(kDoubleInf).sin));
}

TEST(ExactMath, PowOfRotaryFrequencies) {
  double worst = 0;
  for (const double base : {10000.0, 100000.0, 500000.0, 1e6, 1e7, 0.3, 1.0, 2.0, 1.0000001}) {
    for (const int head_dim : {8, 64, 80, 96, 128, 256}) {
      for (int i = 0; i < head_dim / 2; ++i) {
        const double y = -2.0 * i / head_dim;
        const long double exact_value = std::pow(static_cast<long double>(base), y);
        worst = std::max(worst, ulps(exact::pow(base, y), exact_value));
      }
    }
  }
  EXPECT_LT(worst, 1.0);
  EXPECT_EQ(exact::pow(10000.0, 0.0), 1.0);
  EXPECT_EQ(exact::pow(10000.0, -0.5), 0.01);
  EXPECT_EQ(exact::pow(2.0, 10.0), 1024.0);
  EXPECT_TRUE(std::isnan(exact::pow(-2.0, 2.0)));
}

// The bits themselves, so that a change of compiler or machine that changes them is seen.
TEST(ExactMath, GoldenBits) {
  EXPECT_EQ(std::bit_cast<std::uint32_t>(exact::exp(1.0f)), 0x402df854u);
  std::uint64_t hash = 0xcbf29ce484222325;
  const auto mix = [&](auto value) {
    for (unsigned i = 0; i < sizeof(value); ++i) {
      hash = (hash ^ (std::bit_cast<std::uint64_t>(static_cast<double>(value)) >> (8 * i) & 255)) *
             0x100000001b3;
    }
  };
  for (int i = 1; i < 5000; ++i) {
    const double x = i * 0.0123456789;
    mix(exact::exp(static_cast<float>(-x)));
    mix(exact::exp(x));
    mix(exact::log(x));
    mix(exact::sin_cos(x * 1000).sin);
    mix(exact::sin_cos(x * 1000).cos);
    mix(exact::pow(x, -0.37));
  }
  EXPECT_EQ(hash, 4534535718920383018u);
}

}  // namespace
}  // namespace paceline::kernels
