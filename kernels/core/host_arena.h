#pragma once

#include <cstddef>

#include "kernels/api.h"

namespace paceline::kernels {

/// Hands out host memory for many matrices from few large blocks, which the system can map with
/// huge pages: a model's matrices, each too small for one, are all read in every step. A block is
/// given back when all that came from it have been released and the arena has gone on to another.
/// For one thread at a time, releases included.
class HostArena {
 public:
  HostArena() = default;
  ~HostArena();
  HostArena(const HostArena&) = delete;
  HostArena& operator=(const HostArena&) = delete;

  /// Zeroed and 64-byte aligned. Throws std::bad_alloc.
  Buffer allocate(std::size_t bytes);

 private:
  struct Block;
  static void leave(Block* block);

  Block* block_ = nullptr;
};

}  // namespace paceline::kernels
