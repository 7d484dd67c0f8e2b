#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace paceline::simt {

/// Memory of the device that stands in for a GPU. Only kernels and `HostAccess` may touch it: a
/// host function that reads or writes it crashes, as it would beside a real GPU. nullptr if there
/// is none left, or for 0 bytes.
void* allocate(std::size_t bytes);
/// Of the memory, in bytes.
std::size_t free_memory();
std::size_t total_memory();
/// Throws an Error unless `memory` came from allocate and has not been freed, or is nullptr.
void free(void* memory);

/// How often something was copied to the host: a program waits for the device there.
std::atomic<std::int64_t>& copies_to_host();

/// While one lives, device memory can be touched: when kernels run, and in copies.
class HostAccess {
 public:
  HostAccess();
  ~HostAccess();
  HostAccess(const HostAccess&) = delete;
  HostAccess& operator=(const HostAccess&) = delete;
};

}  // namespace paceline::simt
