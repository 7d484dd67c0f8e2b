#include "runtime/tokenizer/byte_level.h"

#include "runtime/tokenizer/utf8.h"

namespace paceline::runtime {

ByteLevelAlphabet::ByteLevelAlphabet() {
  byte_.fill(-1);
  char32_t next_stand_in = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
    character_[byte] = printable ? byte : next_stand_in++;
    byte_[character_[byte]] = static_cast<std::int16_t>(byte);
  }
}

void ByteLevelAlphabet::append_spelled(std::string_view bytes, std::string& text) const {
  for (const char byte : bytes) append_utf8(text, character_[static_cast<unsigned char>(byte)]);
}

std::optional<std::string> ByteLevelAlphabet::unspell(std::string_view text) const {
  std::string bytes;
  bytes.reserve(text.size());
  while (!text.empty()) {
    const Utf8Step step = decode_utf8(text);
    if (step.code_point >= byte_.size() || byte_[step.code_point] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(byte_[step.code_point]));
    text.remove_prefix(step.length);
  }
  return bytes;
}

}  // namespace paceline::runtime
