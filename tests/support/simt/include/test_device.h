#pragma once

#include <gtest/gtest.h>

#include <memory>

#include "kernels/api.h"
#include "tests/support/simt/every_order.h"

// What the tests of kernels/cuda need to know of the device that runs them: here the CPU. Built for
// a GPU they include tests/support/gpu's header of this name.

namespace paceline::kernels {

inline constexpr bool kOnGpu = false;

using simt::in_every_order;

/// What keeps matrices: where kernels run on the CPU its memory is the device's.
inline std::unique_ptr<Backend> device_memory() { return make_reference_backend(); }

/// Expects that the kernel which `body` launches traps.
template <typename Body>
void expect_trap(const Body& body) {
  EXPECT_THROW(body(), simt::Error);
}

}  // namespace paceline::kernels
