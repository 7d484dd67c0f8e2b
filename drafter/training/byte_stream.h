#pragma once

#include <cstdint>
#include <istream>
#include <ostream>
#include <span>
#include <string>
#include <string_view>

namespace paceline::drafter {

/// Writes what ByteReader reads, little-endian. Throws ConfigError naming `target` if the stream
/// fails.
class ByteWriter {
 public:
  ByteWriter(std::ostream& stream, std::string target)
      : stream_(stream), target_(std::move(target)) {}

  void number(std::uint64_t value);
  void text(std::string_view value);
  void floats(std::span<const float> values);

 private:
  void bytes(const void* data, std::size_t size);

  std::ostream& stream_;
  std::string target_;
};

/// Reads bytes that may be anyone's. Throws ConfigError naming `source` and what was being read if
/// they end too early or are not what the reader expects; it never takes more memory than the
/// caller asks for.
class ByteReader {
 public:
  ByteReader(std::istream& stream, std::string source)
      : stream_(stream), source_(std::move(source)) {}

  std::uint64_t number(std::string_view what);
  /// At most `max_size` bytes.
  std::string text(std::string_view what, std::size_t max_size);
  /// Exactly values.size() of them, finite.
  void floats(std::string_view what, std::span<float> values);
  /// Throws unless nothing is left.
  void end();

  const std::string& source() const { return source_; }

 private:
  void bytes(std::string_view what, void* data, std::size_t size);

  std::istream& stream_;
  std::string source_;
};

}  // namespace paceline::drafter
