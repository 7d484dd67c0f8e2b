#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/api.h"

namespace paceline::kernels {

/// Room for `count` elements of T. Grows at least by doubling: after a few steps nothing is
/// allocated any more. What it held is lost when it grows.
template <typename T>
T* reserve(Backend& backend, Buffer& buffer, std::int64_t count) {
  const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
  if (bytes > buffer.bytes()) {
    const std::size_t size = std::max(bytes, 2 * buffer.bytes());
    buffer = {};
    buffer = backend.allocate(size);
  }
  return buffer.as<T>();
}

/// Copies host values to the device.
template <typename T>
const T* upload(Backend& backend, Buffer& buffer, std::span<const T> values) {
  T* device = reserve<T>(backend, buffer, std::ssize(values));
  if (!values.empty()) backend.upload(device, values.data(), values.size_bytes());
  return device;
}

}  // namespace paceline::kernels
