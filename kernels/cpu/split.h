#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/core/host_matrix.h"
#include "kernels/core/thread_pool.h"

namespace paceline::kernels::cpu {

/// Elements that are worth another thread: a hand-over costs about as much as that many.
inline constexpr std::int64_t kCheapElements = 16384;  // a few instructions each
inline constexpr std::int64_t kDearElements = 4096;    // an exp or a sine each

/// Part `index` of `parts` nearly equal parts of [0, size).
inline IndexRange part_of(std::int64_t size, std::int64_t index, std::int64_t parts) {
  return {size * index / parts, size * (index + 1) / parts};
}

/// Calls body(range) for consecutive ranges that cover [0, size), one a thread. Below
/// `least` elements a range the work is not worth a thread. Boundaries are multiples of `align`.
template <typename Body>
void split(ThreadPool& pool, std::int64_t size, std::int64_t least, std::int64_t align,
           const Body& body) {
  if (size <= 0) return;
  const std::int64_t wanted =
      std::clamp<std::int64_t>(size / std::max<std::int64_t>(least, 1), 1, pool.threads());
  const std::int64_t step = ((size + wanted - 1) / wanted + align - 1) / align * align;
  const auto tasks = static_cast<int>((size + step - 1) / step);
  pool.run(tasks, [&](int task) {
    body(IndexRange{task * step, std::min<std::int64_t>((task + 1) * step, size)});
  });
}

/// Rows that together have about `elements` elements.
inline std::int64_t rows_of(std::int64_t elements, std::int64_t width) {
  return std::max<std::int64_t>(1, elements / std::max<std::int64_t>(width, 1));
}

}  // namespace paceline::kernels::cpu
