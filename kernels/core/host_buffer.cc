#include "kernels/core/host_buffer.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <limits>
#include <new>

namespace paceline::kernels {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

// The block that calloc gave stands right before the aligned data.
void release(void* data) {
  if (data != nullptr) std::free(static_cast<void**>(data)[-1]);
}

// Weights and caches are read all over in every step: with pages of 4 KB the processor would look
// up addresses more than it computes. Only advice; where it is refused nothing else changes.
void advise_huge_pages(void* block, std::size_t bytes) {
  const auto begin = (reinterpret_cast<std::uintptr_t>(block) + kHugePage - 1) & ~(kHugePage - 1);
  const auto end = (reinterpret_cast<std::uintptr_t>(block) + bytes) & ~(kHugePage - 1);
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

}  // namespace

// calloc rather than aligned memory cleared by hand: the system's fresh pages are zero already, and
// a large cache should take memory only where it is touched.
Buffer allocate_host(std::size_t bytes) {
  if (bytes == 0) return {};
  if (bytes > std::numeric_limits<std::size_t>::max() - 2 * kAlignment) throw std::bad_alloc();
  void* block = std::calloc(bytes + 2 * kAlignment, 1);
  if (block == nullptr) throw std::bad_alloc();
  advise_huge_pages(block, bytes + 2 * kAlignment);
  const auto address = reinterpret_cast<std::uintptr_t>(block) + sizeof(void*);
  void* data = reinterpret_cast<void*>((address + kAlignment - 1) / kAlignment * kAlignment);
  static_cast<void**>(data)[-1] = block;
  return {data, bytes, release};
}

}  // namespace paceline::kernels
