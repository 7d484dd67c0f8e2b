#include "kernels/core/host_arena.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

namespace paceline::kernels {
namespace {

TEST(HostArena, GivesZeroedAlignedMemoryThatDoesNotOverlap) {
  HostArena arena;
  std::vector<Buffer> buffers;
  for (std::size_t i = 0; i < 300; ++i) {
    buffers.push_back(arena.allocate(1 + i * i * 7 % 900000));  // several blocks
    const Buffer& buffer = buffers.back();
    ASSERT_EQ(reinterpret_cast<std::uintptr_t>(buffer.as<void>()) % 64, 0u);
    const auto* bytes = buffer.as<unsigned char>();
    ASSERT_TRUE(std::all_of(bytes, bytes + buffer.bytes(), [](int byte) { return byte == 0; }));
    std::memset(buffer.as<void>(), static_cast<int>(i % 255) + 1, buffer.bytes());
  }
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    const auto* bytes = buffers[i].as<unsigned char>();
    ASSERT_TRUE(std::all_of(bytes, bytes + buffers[i].bytes(),
                            [&](unsigned byte) { return byte == i % 255 + 1; }));
  }
}

TEST(HostArena, WhatItGaveOutlivesIt) {
  auto arena = std::make_unique<HostArena>();
  const Buffer small = arena->allocate(100);
  const Buffer large = arena->allocate(std::size_t{40} << 20);
  arena.reset();
  std::memset(small.as<void>(), 1, small.bytes());
  std::memset(large.as<void>(), 1, large.bytes());
  EXPECT_EQ(small.bytes(), 100u);
}

TEST(HostArena, NothingIsNothing) {
  HostArena arena;
  EXPECT_EQ(arena.allocate(0).bytes(), 0u);
}

}  // namespace
}  // namespace paceline::kernels
