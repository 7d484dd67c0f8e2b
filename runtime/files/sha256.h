#pragma once

#include <array>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace paceline::runtime {

/// SHA-256 (FIPS 180-4), fed piece by piece.
class Sha256 {
 public:
  using Digest = std::array<std::byte, 32>;

  Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  ~Sha256();

  Sha256& update(std::span<const std::byte> bytes);
  Sha256& update(std::string_view text);

  /// The digest of everything fed since construction or the last finish; starts anew.
  Digest finish();
  /// finish(), as 64 lower-case hexadecimal digits.
  std::string finish_hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Digest as 64 lower-case hexadecimal digits.
std::string hex_of(const Sha256::Digest& digest);

/// The hexadecimal digest of some bytes.
std::string sha256_hex(std::span<const std::byte> bytes);
std::string sha256_hex(std::string_view text);

/// The hexadecimal digest of a file, read in pieces. Throws ConfigError if it cannot be read.
std::string sha256_of_file(const std::filesystem::path& path);

}  // namespace paceline::runtime
