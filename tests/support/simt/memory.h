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

/// How often the host waited for a stream, an event, or a copy to memory that is not pinned.
std::atomic<std::int64_t>& host_waits();

/// While one lives, device memory can be touched: when kernels run, and in copies.
class HostAccess {
 public:
  HostAccess();
  ~HostAccess();
  HostAccess(const HostAccess&) = delete;
  HostAccess& operator=(const HostAccess&) = delete;
};

}  // namespace paceline::simt
