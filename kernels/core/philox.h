#pragma once

#include <array>
#include <cstdint>

#include "kernels/core/host_device.h"

namespace paceline::kernels {

/// Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel random
/// numbers: as easy as 1, 2, 3" (SC11): four 32-bit numbers from a 128-bit counter and a 64-bit
/// key.
struct Philox {
  static constexpr std::uint32_t kMultiplier0 = 0xD2511F53;
  static constexpr std::uint32_t kMultiplier1 = 0xCD9E8D57;
  static constexpr std::uint32_t kWeyl0 = 0x9E3779B9;
  static constexpr std::uint32_t kWeyl1 = 0xBB67AE85;
  static constexpr int kRounds = 10;
};

PACELINE_HOST_DEVICE inline std::array<std::uint32_t, 4> philox(
    std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < Philox::kRounds; ++round) {
    const std::uint64_t product0 = std::uint64_t{Philox::kMultiplier0} * counter[0];
    const std::uint64_t product1 = std::uint64_t{Philox::kMultiplier1} * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<std::uint32_t>(product0)};
    key = {key[0] + Philox::kWeyl0, key[1] + Philox::kWeyl1};
  }
  return counter;
}

}  // namespace paceline::kernels
