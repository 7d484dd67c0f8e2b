#include "runtime/files/sha256.h"

#include <openssl/evp.h>

#include <fstream>
#include <vector>

#include "kernels/core/error.h"

namespace paceline::runtime {

struct Sha256::State {
  State() : context(EVP_MD_CTX_new()) { check(context != nullptr, "SHA-256: out of memory"); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { EVP_MD_CTX_free(context); }

  void start() {
    check(EVP_DigestInit_ex(context, EVP_sha256(), nullptr) == 1, "SHA-256 cannot be started");
  }

  EVP_MD_CTX* context;
};

Sha256::Sha256() : state_(std::make_unique<State>()) { state_->start(); }
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;
Sha256::~Sha256() = default;

Sha256& Sha256::update(std::span<const std::byte> bytes) {
  check(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()) == 1, "SHA-256 failed");
  return *this;
}

Sha256& Sha256::update(std::string_view text) {
  return update(std::as_bytes(std::span(text.data(), text.size())));
}

Sha256::Digest Sha256::finish() {
  Digest digest = {};
  auto* bytes = reinterpret_cast<unsigned char*>(digest.data());
  check(EVP_DigestFinal_ex(state_->context, bytes, nullptr) == 1, "SHA-256 failed");
  state_->start();
  return digest;
}

std::string Sha256::finish_hex() { return hex_of(finish()); }

std::string hex_of(const Sha256::Digest& digest) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  text.reserve(2 * digest.size());
  for (const std::byte byte : digest) {
    text += kDigits[std::to_integer<std::size_t>(byte >> 4)];
    text += kDigits[std::to_integer<std::size_t>(byte & std::byte{15})];
  }
  return text;
}

std::string sha256_hex(std::span<const std::byte> bytes) {
  return Sha256().update(bytes).finish_hex();
}

std::string sha256_hex(std::string_view text) { return Sha256().update(text).finish_hex(); }

std::string sha256_of_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw ConfigError("{}: cannot be opened for reading", path.string());
  Sha256 hash;
  std::vector<char> piece(std::size_t{1} << 20);
  while (file) {
    file.read(piece.data(), static_cast<std::streamsize>(piece.size()));
    hash.update(std::string_view(piece.data(), static_cast<std::size_t>(file.gcount())));
  }
  if (!file.eof()) throw ConfigError("{}: could not be read to its end", path.string());
  return hash.finish_hex();
}

}  // namespace paceline::runtime
