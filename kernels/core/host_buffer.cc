#include "kernels/core/host_buffer.h"

#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>

namespace paceline::kernels {

Buffer allocate_host(std::size_t bytes) {
  constexpr std::size_t kAlignment = 64;
  if (bytes == 0) return {};
  if (bytes > std::numeric_limits<std::size_t>::max() - kAlignment) throw std::bad_alloc();
  const std::size_t whole = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  void* data = std::aligned_alloc(kAlignment, whole);
  if (data == nullptr) throw std::bad_alloc();
  std::memset(data, 0, whole);
  return {data, bytes, std::free};
}

}  // namespace paceline::kernels
