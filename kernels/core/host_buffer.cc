#include "kernels/core/host_buffer.h"

#include <cstdint>
#include <cstdlib>
#include <limits>
#include <new>

namespace paceline::kernels {
namespace {

constexpr std::size_t kAlignment = 64;

// The block that calloc gave stands right before the aligned data.
void release(void* data) {
  if (data != nullptr) std::free(static_cast<void**>(data)[-1]);
}

}  // namespace

// calloc rather than aligned memory cleared by hand: the system's fresh pages are zero already, and
// a large cache should take memory only where it is touched.
Buffer allocate_host(std::size_t bytes) {
  if (bytes == 0) return {};
  if (bytes > std::numeric_limits<std::size_t>::max() - 2 * kAlignment) throw std::bad_alloc();
  void* block = std::calloc(bytes + 2 * kAlignment, 1);
  if (block == nullptr) throw std::bad_alloc();
  const auto address = reinterpret_cast<std::uintptr_t>(block) + sizeof(void*);
  void* data = reinterpret_cast<void*>((address + kAlignment - 1) / kAlignment * kAlignment);
  static_cast<void**>(data)[-1] = block;
  return {data, bytes, release};
}

}  // namespace paceline::kernels
