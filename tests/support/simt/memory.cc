#include "tests/support/simt/memory.h"

#include <sys/mman.h>

#include <cstdint>
#include <map>
#include <mutex>

#include "tests/support/simt/block.h"

namespace paceline::simt {
namespace {

constexpr std::size_t kArenaBytes = std::size_t{1} << 30;  // of addresses; memory is taken as used
constexpr std::size_t kAlignment = 256;                    // CUDA's

/// One range of addresses, so that one call opens and closes it.
class Arena {
 public:
  Arena() {
    void* begin =
        ::mmap(nullptr, kArenaBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (begin == MAP_FAILED) throw Error("no addresses for the device's memory");
    begin_ = static_cast<std::byte*>(begin);
  }

  void* allocate(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    const std::size_t size = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    if (bytes == 0 || size > kArenaBytes) return nullptr;
    std::size_t at = 0;  // the first gap that is wide enough
    for (const auto& [begin, length] : used_) {
      if (begin - at >= size) break;
      at = begin + length;
    }
    if (kArenaBytes - at < size) return nullptr;
    used_[at] = size;
    return begin_ + at;
  }

  void free(void* memory) {
    const std::lock_guard lock(mutex_);
    const auto at = static_cast<std::size_t>(static_cast<std::byte*>(memory) - begin_);
    if (used_.erase(at) == 0) throw Error("device memory is freed that is not in use");
  }

  std::size_t free_bytes() {
    const std::lock_guard lock(mutex_);
    std::size_t free = kArenaBytes;
    for (const auto& [begin, length] : used_) free -= length;
    return free;
  }

  void open() {
    const std::lock_guard lock(mutex_);
    if (open_++ == 0) ::mprotect(begin_, kArenaBytes, PROT_READ | PROT_WRITE);
  }
  void close() {
    const std::lock_guard lock(mutex_);
    if (--open_ == 0) ::mprotect(begin_, kArenaBytes, PROT_NONE);
  }

 private:
  std::mutex mutex_;
  std::byte* begin_ = nullptr;
  std::map<std::size_t, std::size_t> used_;  // from offset to size
  int open_ = 0;
};

// Buffers may be freed while the program ends, so it is never destroyed.
Arena& arena() {
  static Arena& the_arena = *new Arena;
  return the_arena;
}

}  // namespace

void* allocate(std::size_t bytes) { return arena().allocate(bytes); }
void free(void* memory) {
  if (memory != nullptr) arena().free(memory);
}

std::size_t free_memory() { return arena().free_bytes(); }
std::size_t total_memory() { return kArenaBytes; }

std::atomic<std::int64_t>& host_waits() {
  static std::atomic<std::int64_t> waits = 0;
  return waits;
}

HostAccess::HostAccess() { arena().open(); }
HostAccess::~HostAccess() { arena().close(); }

}  // namespace paceline::simt
