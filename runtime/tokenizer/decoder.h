#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/tokenizer/byte_level.h"
#include "runtime/tokenizer/json_field.h"
#include "runtime/tokenizer/utf8.h"

namespace paceline::runtime {

/// `decoder` of tokenizer.json: Replace of a string, ByteFallback, Fuse, Strip at the start,
/// ByteLevel, Metaspace, and Sequences of those. Works token by token, and holds back what later
/// tokens may still change: the beginning of a character (ByteLevel), and a run of byte tokens
/// (ByteFallback, which turns each byte of a run that is not valid UTF-8 as a whole into U+FFFD).
class Decoder {
 public:
  /// Throws ConfigError for anything else. Absent means: the tokens with spaces between them.
  static Decoder parse(const std::optional<JsonField>& field);

  /// What one stream of tokens has left behind in each stage.
  class State {
    friend class Decoder;
    struct Stage {
      std::uint64_t seen = 0;    // tokens (Metaspace, spaces) or characters stripped (Strip)
      std::string byte_tokens;   // ByteFallback: the bytes of the run so far
      Utf8Assembler characters;  // ByteLevel
    };
    std::vector<Stage> stages;
  };

  /// Appends to `text` what `token` (valid UTF-8) and those before it have settled: whole
  /// characters.
  void push(State& state, std::string_view token, std::string& text) const;
  /// Appends what was held back.
  void finish(State& state, std::string& text) const;

 private:
  enum class Kind { kReplace, kByteFallback, kFuse, kStrip, kByteLevel, kMetaspace, kSpaces };
  struct Stage {
    Kind kind;
    std::string pattern;       ///< kReplace, kMetaspace, kStrip (one character)
    std::string content;       ///< kReplace
    std::uint64_t count = 0;   ///< kStrip: at most this many characters
    bool fused = false;        ///< what arrives are parts of one token
    bool drops_first = false;  ///< kMetaspace: no space for the replacement in the first token
  };
  static void parse_into(const JsonField& field, std::vector<Stage>& stages);
  static Stage parse_strip(const JsonField& field);
  static Stage parse_metaspace(const JsonField& field);

  void advance(std::size_t stage, std::string_view token, State& state, std::string& text) const;
  void end_byte_run(std::size_t stage, State& state, std::string& text) const;
  static std::string_view strip(const Stage& stage, std::string_view token, std::uint64_t& seen);

  std::vector<Stage> stages_;
  ByteLevelAlphabet alphabet_;
};

}  // namespace paceline::runtime
