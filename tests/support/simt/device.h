#pragma once

#include <cstdint>
#include <functional>

#include "tests/support/simt/block.h"

namespace paceline::simt {

/// While it lives, kernels run in another random order: which block comes next, and which of its
/// threads. One order at a time.
class Order {
 public:
  explicit Order(std::uint64_t seed);
  ~Order();
  Order(const Order&) = delete;
  Order& operator=(const Order&) = delete;
};

/// Runs a kernel for every thread of every block, one block after the other. Throws what a thread
/// threw, or an Error. Not to be called from a kernel; of several threads' kernels one runs at a
/// time.
void run_grid(Index3 grid, Index3 block, std::size_t shared_bytes,
              const std::function<void()>& kernel);

/// The block that runs. Throws an Error outside of kernels.
Block& current_block();

}  // namespace paceline::simt
