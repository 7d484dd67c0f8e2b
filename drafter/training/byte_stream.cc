#include "drafter/training/byte_stream.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/core/error.h"

namespace paceline::drafter {

static_assert(std::endian::native == std::endian::little);

void ByteWriter::bytes(const void* data, std::size_t size) {
  stream_.write(static_cast<const char*>(data), static_cast<std::streamsize>(size));
  if (!stream_) throw ConfigError("{}: cannot be written", target_);
}

void ByteWriter::number(std::uint64_t value) { bytes(&value, sizeof value); }

void ByteWriter::text(std::string_view value) {
  number(value.size());
  bytes(value.data(), value.size());
}

void ByteWriter::floats(std::span<const float> values) {
  number(values.size());
  bytes(values.data(), values.size_bytes());
}

void ByteReader::bytes(std::string_view what, void* data, std::size_t size) {
  stream_.read(static_cast<char*>(data), static_cast<std::streamsize>(size));
  if (static_cast<std::size_t>(stream_.gcount()) != size) {
    throw ConfigError("{}: ends within {}", source_, what);
  }
}

std::uint64_t ByteReader::number(std::string_view what) {
  std::uint64_t value = 0;
  bytes(what, &value, sizeof value);
  return value;
}

std::string ByteReader::text(std::string_view what, std::size_t max_size) {
  const std::uint64_t size = number(what);
  if (size > max_size) {
    throw ConfigError("{}: {} of {} bytes, expected at most {}", source_, what, size, max_size);
  }
  std::string value(size, '\0');
  bytes(what, value.data(), value.size());
  return value;
}

void ByteReader::floats(std::string_view what, std::span<float> values) {
  const std::uint64_t size = number(what);
  if (size != values.size()) {
    throw ConfigError("{}: {} has {} numbers, expected {}", source_, what, size, values.size());
  }
  bytes(what, values.data(), values.size_bytes());
  if (!std::all_of(values.begin(), values.end(),
                   [](float value) { return std::isfinite(value); })) {
    throw ConfigError("{}: {} has a number that is not finite", source_, what);
  }
}

void ByteReader::end() {
  if (stream_.peek() != std::istream::traits_type::eof()) {
    throw ConfigError("{}: goes on after its end", source_);
  }
}

}  // namespace paceline::drafter
