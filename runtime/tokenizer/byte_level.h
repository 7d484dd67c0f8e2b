#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace paceline::runtime {

/// GPT-2's spelling of arbitrary bytes as printable characters: the printable bytes of Latin-1
/// stand for themselves, the other 68 are U+0100 onwards in order. A space is U+0120, a newline
/// U+010A. Source: Radford et al. 2019, the encoder released with the model.
class ByteLevelAlphabet {
 public:
  ByteLevelAlphabet();

  /// Each byte as its character, UTF-8.
  void append_spelled(std::string_view bytes, std::string& text) const;

  /// The bytes that `text` (valid UTF-8) spells; nothing if it has a character outside the
  /// alphabet.
  std::optional<std::string> unspell(std::string_view text) const;

 private:
  static constexpr int kCharacters = 0x100 + 68;
  std::array<char32_t, 256> character_;
  std::array<std::int16_t, kCharacters> byte_;  // -1: not in the alphabet
};

}  // namespace paceline::runtime
