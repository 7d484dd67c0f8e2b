#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/core/error.h"

namespace paceline::runtime {

/// Writes plain values one after the other, for messages between ranks of one build.
class WireWriter {
 public:
  template <typename T>
  void value(const T& plain) {
    static_assert(std::is_trivially_copyable_v<T>);
    const std::size_t end = bytes_.size();
    bytes_.resize(end + sizeof(T));
    std::memcpy(bytes_.data() + end, &plain, sizeof(T));
  }
  template <typename T>
  void list(const std::vector<T>& items) {
    value(static_cast<std::uint64_t>(items.size()));
    for (const T& item : items) value(item);
  }
  void text(const std::string& string) {
    value(static_cast<std::uint64_t>(string.size()));
    const auto* bytes = reinterpret_cast<const std::byte*>(string.data());
    bytes_.insert(bytes_.end(), bytes, bytes + string.size());
  }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

/// Reads them back; throws FatalError where the bytes end too early or are left over.
class WireReader {
 public:
  explicit WireReader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  template <typename T>
  T value() {
    static_assert(std::is_trivially_copyable_v<T>);
    T plain;
    std::memcpy(&plain, take(sizeof(T)).data(), sizeof(T));
    return plain;
  }
  template <typename T>
  std::vector<T> list() {
    const auto count = value<std::uint64_t>();
    check(count <= bytes_.size() / sizeof(T), "a message between ranks is cut short");
    std::vector<T> items(count);
    for (T& item : items) item = value<T>();
    return items;
  }
  std::string text() {
    const auto bytes = take(value<std::uint64_t>());
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  void done() const { check(bytes_.empty(), "a message between ranks has bytes left over"); }

 private:
  std::span<const std::byte> take(std::uint64_t count) {
    check(count <= bytes_.size(), "a message between ranks is cut short");
    const auto taken = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    return taken;
  }
  std::span<const std::byte> bytes_;
};

}  // namespace paceline::runtime
