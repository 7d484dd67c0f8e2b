#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "tests/support/simt/device.h"

namespace paceline::simt {

/// Runs a test's body in several orders. What a kernel leaves must not depend on them.
template <typename Body>
void in_every_order(const Body& body) {
  for (const std::uint64_t seed : {1, 2, 3}) {
    SCOPED_TRACE("order " + std::to_string(seed));
    const Order order(seed);
    body();
  }
}

}  // namespace paceline::simt
