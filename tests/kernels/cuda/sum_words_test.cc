#include <gtest/gtest.h>
#include <test_device.h>

#include <cstdint>
#include <vector>

#include "kernels/cuda/ops.h"

namespace paceline::kernels {
namespace {

// 1 + 2 + ... + n, with a word that makes the sum wrap, at sizes around a block's share.
TEST(CudaSumWords, AddsModulo2To64) {
  for (const std::int64_t count : {0, 1, 255, 256, 257, 20'003}) {
    std::vector<std::uint64_t> words(static_cast<std::size_t>(count) + 1);
    for (std::int64_t i = 0; i < count; ++i) words[i] = static_cast<std::uint64_t>(i) + 1;
    words[count] = ~std::uint64_t{0};
    const auto expected = static_cast<std::uint64_t>(count * (count + 1) / 2);
    in_every_order([&] {
      std::vector<std::uint64_t> sum = {99};
      cuda::sum_words({.words = words.data(), .sum = sum.data(), .count = count}, nullptr);
      EXPECT_EQ(sum[0], expected);
      cuda::sum_words({.words = words.data(), .sum = sum.data(), .count = count + 1}, nullptr);
      EXPECT_EQ(sum[0], expected - 1);
    });
  }
}

}  // namespace
}  // namespace paceline::kernels
