#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <exception>
#include <memory>

#include "kernels/cuda/backend.h"

// What the tests of kernels/cuda need to know of the device that runs them: here a GPU. Its kernels
// read and write whatever a test allocates (host_memory.cc), not what stands on the stack, and are
// done when `launch` returns.

namespace paceline::kernels {

inline constexpr bool kOnGpu = true;

/// Once: a GPU's order is its own.
template <typename Body>
void in_every_order(const Body& body) {
  body();
}

/// What keeps matrices: the GPU's own memory.
inline std::unique_ptr<Backend> device_memory() { return make_cuda_backend({}); }

/// Expects that the kernel which `body` launches traps: in a process of its own, which can do
/// nothing more with the GPU after that.
template <typename Body>
void expect_trap(const Body& body) {
  constexpr int kTrapped = 7;
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        try {
          body();
          device_memory()->synchronize();
        } catch (const std::exception&) {
          std::_Exit(kTrapped);
        }
      },
      testing::ExitedWithCode(kTrapped), "");
}

}  // namespace paceline::kernels
