#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/core/thread_pool.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/row_ops.h"

/// One test body over every instruction set that the machine has, alone and with threads.
namespace paceline::kernels {

template <typename Body>
void on_every_cpu(const Body& body) {
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    for (const cpu::Isa isa : cpu::supported_isas()) {
      SCOPED_TRACE(std::string(cpu::isa_name(isa)) + ", threads " + std::to_string(threads));
      body(cpu::row_ops(isa), pool);
    }
  }
}

/// Equal bits, where a NaN stands for any NaN.
template <typename T>
bool same_bits(T a, T b) {
  using Bits = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
  return std::bit_cast<Bits>(a) == std::bit_cast<Bits>(b) || (std::isnan(a) && std::isnan(b));
}

template <typename T>
void expect_same_bits(const std::vector<T>& got, const std::vector<T>& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_TRUE(same_bits(got[i], expected[i]))
        << "element " << i << ": " << got[i] << ", expected " << expected[i];
  }
}

/// Normal numbers of the given size.
inline std::vector<float> random_floats(std::size_t count, float size, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, size);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

/// What breaks kernels: zeros of both signs, denormals, the largest numbers, infinities, NaN.
inline std::vector<float> awkward_floats(std::size_t count, bool finite, std::uint32_t seed) {
  using Limits = std::numeric_limits<float>;
  const std::vector<float> special = {0.0f,
                                      -0.0f,
                                      Limits::denorm_min(),
                                      -Limits::denorm_min(),
                                      Limits::min(),
                                      1e-30f,
                                      -1e-38f,
                                      1e18f,
                                      -88.5f,
                                      104.5f,
                                      Limits::max(),
                                      finite ? 1.0f : Limits::infinity(),
                                      finite ? 1.0f : -Limits::infinity(),
                                      finite ? 1.0f : Limits::quiet_NaN()};
  std::vector<float> values = random_floats(count, 3.0f, seed);
  std::mt19937 random(seed);
  for (float& value : values) {
    if (random() % 16 == 0) value = special[random() % special.size()];
  }
  return values;
}

}  // namespace paceline::kernels
