#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/tokenizer/json_field.h"

namespace paceline::runtime {

/// Valid UTF-8 that remembers who wrote each byte.
struct AttributedText {
  std::string bytes;
  std::vector<std::uint8_t> trusted;  ///< [bytes.size()], 1 where the template's author wrote it
};

/// Unicode Normalization Form C of valid UTF-8, in place. A character made of several is trusted if
/// all of them were. The tables are utf8proc's (Unicode 15). The `tokenizers` package still has
/// Unicode 9's: it leaves combining marks that were added since then in the order they came in.
void normalize_nfc(AttributedText& text);

/// `normalizer` of tokenizer.json: NFC, Prepend, Replace of a string, and Sequences of those.
class Normalizer {
 public:
  /// Throws ConfigError for anything else. Absent means: leave the text as it is.
  static Normalizer parse(const std::optional<JsonField>& field);

  void apply(AttributedText& text) const;
  std::string apply(std::string_view text) const;

 private:
  enum class Kind { kNfc, kPrepend, kReplace };
  struct Step {
    Kind kind;
    std::string pattern;  ///< kReplace: what is replaced; not empty
    std::string content;  ///< kPrepend and kReplace: what is put there
  };
  static void parse_into(const JsonField& field, std::vector<Step>& steps);

  std::vector<Step> steps_;
};

}  // namespace paceline::runtime
