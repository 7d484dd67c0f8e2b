#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace paceline::runtime {

inline constexpr char32_t kReplacementCharacter = 0xFFFD;

/// What stands at the front of a byte string that should be UTF-8.
struct Utf8Step {
  char32_t code_point;   ///< kReplacementCharacter if the bytes are broken
  std::uint32_t length;  ///< bytes consumed: a character, or a maximal broken part of one
  bool valid;
  bool cut_off;  ///< broken only because the bytes end here; more bytes could complete it
};

/// Decodes the front of `bytes`, which must not be empty. Broken bytes are taken in the "maximal
/// subparts" of the Unicode Standard, section 3.9, as Rust's String::from_utf8_lossy takes them.
Utf8Step decode_utf8(std::string_view bytes);

/// Appends a Unicode scalar value.
void append_utf8(std::string& text, char32_t code_point);

/// The character that ends just before byte `end` of valid UTF-8; end > 0.
Utf8Step decode_utf8_before(std::string_view text, std::size_t end);

/// `bytes` with each maximal broken part replaced by U+FFFD.
std::string replace_broken_utf8(std::string_view bytes);

bool is_valid_utf8(std::string_view bytes);

/// Unicode's White_Space property.
bool is_white_space(char32_t code_point);

/// Joins bytes into whole characters: what push() returns is always valid UTF-8, and the
/// concatenation of everything returned is replace_broken_utf8 of everything pushed.
class Utf8Assembler {
 public:
  std::string push(std::string_view bytes);
  /// What is held back, as U+FFFD if it never became a character.
  std::string finish();

 private:
  std::string pending_;  // at most 3 bytes: the beginning of one character
};

}  // namespace paceline::runtime
