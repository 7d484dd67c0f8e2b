#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>
#include <stdexcept>

// The tests of kernels/cuda hand vectors to kernels as device memory. Here `new` takes what tests
// allocate from pinned host memory, which a GPU reads and writes at the addresses that the host
// uses, so that the tests are the same on the CPU and on a GPU. Memory of the GPU's own is what the
// engine's tests use.

namespace {

constexpr std::size_t kArenaBytes = std::size_t{1} << 30;
constexpr std::size_t kAlignment = 16;

/// Blocks of powers of two, each behind a header that says which one. Before `open` and when it is
/// full it has none, and memory is the C library's.
class Arena {
 public:
  void open() {
    void* memory = nullptr;
    const cudaError_t status = cudaHostAlloc(&memory, kArenaBytes, cudaHostAllocMapped);
    if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
    const std::lock_guard lock(mutex_);
    begin_ = next_ = static_cast<std::byte*>(memory);
  }

  /// nullptr if there is none.
  void* allocate(std::size_t bytes) {
    const int power = std::bit_width(bytes + kAlignment - 1);
    const std::lock_guard lock(mutex_);
    if (begin_ == nullptr || bytes > kArenaBytes / 2) return nullptr;
    Free*& free = free_[power];
    std::byte* block = nullptr;
    if (free != nullptr) {
      block = reinterpret_cast<std::byte*>(free);
      free = free->next;
    } else {
      const std::size_t size = std::size_t{1} << power;
      if (static_cast<std::size_t>(begin_ + kArenaBytes - next_) < size + kAlignment) {
        return nullptr;
      }
      block = next_ + kAlignment;
      next_ += kAlignment + (size + kAlignment - 1) / kAlignment * kAlignment;
    }
    new (block - kAlignment) int(power);
    return block;
  }

  /// False if the block is not from here.
  bool release(void* memory) {
    auto* block = static_cast<std::byte*>(memory);
    const std::lock_guard lock(mutex_);
    if (begin_ == nullptr || block < begin_ || block >= begin_ + kArenaBytes) return false;
    Free*& free = free_[*reinterpret_cast<int*>(block - kAlignment)];
    free = new (block) Free{free};
    return true;
  }

 private:
  struct Free {
    Free* next = nullptr;
  };

  std::mutex mutex_;
  std::byte* begin_ = nullptr;
  std::byte* next_ = nullptr;
  std::array<Free*, 64> free_{};  // by the power
};

constinit Arena arena;

class HostMemory final : public testing::Environment {
 public:
  void SetUp() override { arena.open(); }
};

// Before CUDA starts: launches wait for their kernels, as the tests look at results at once.
[[maybe_unused]] const testing::Environment* const environment = [] {
  ::setenv("CUDA_LAUNCH_BLOCKING", "1", 1);
  return testing::AddGlobalTestEnvironment(new HostMemory);
}();

}  // namespace

void* operator new(std::size_t bytes) {
  void* memory = arena.allocate(bytes);
  if (memory == nullptr) memory = std::malloc(bytes > 0 ? bytes : 1);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept {
  if (memory != nullptr && !arena.release(memory)) std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept { operator delete(memory); }
