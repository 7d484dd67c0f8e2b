#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/tokenizer/byte_level.h"
#include "runtime/tokenizer/json_field.h"
#include "runtime/tokenizer/regex.h"

namespace paceline::runtime {

/// Text cut into pieces; no merge of the BPE crosses from one to the next.
struct PieceList {
  struct Piece {
    std::size_t begin, end;  ///< bytes of `text`; not empty
    bool opens_input;        ///< the first piece of the whole input
  };
  std::string text;  ///< valid UTF-8
  std::vector<Piece> pieces;

  std::string_view operator[](std::size_t i) const {
    return std::string_view(text).substr(pieces[i].begin, pieces[i].end - pieces[i].begin);
  }
};

/// `pre_tokenizer` of tokenizer.json: Split, Digits, ByteLevel, Metaspace, and Sequences of those.
class PreTokenizer {
 public:
  /// Throws ConfigError for anything else. Absent means: one piece.
  static PreTokenizer parse(const std::optional<JsonField>& field);

  /// `opens_input` tells whether `text` (valid UTF-8) stands at the beginning of the whole input.
  PieceList apply(std::string_view text, bool opens_input) const;

 private:
  enum class Kind { kSplit, kDigits, kByteLevel, kMetaspace };
  enum class Prepend { kNever, kFirst, kAlways };
  struct Step {
    Kind kind;
    std::optional<Regex> pattern;  ///< kSplit, kDigits, kByteLevel with use_regex
    std::string literal;           ///< kSplit by a string; the replacement of kMetaspace
    bool removes = false;          ///< kSplit: drops what matches (or, inverted, what does not)
    bool inverted = false;         ///< kSplit
    bool joins_equal = false;      ///< kDigits: a run of digits is one piece
    bool splits = false;           ///< kMetaspace: a piece begins at each replacement character
    Prepend prepend = Prepend::kNever;  ///< kByteLevel: a space; kMetaspace: the replacement
  };
  static void parse_into(const JsonField& field, std::vector<Step>& steps);
  static Step parse_split(const JsonField& field);
  static Step parse_byte_level(const JsonField& field);
  static Step parse_metaspace(const JsonField& field);

  static void split_at_matches(const Step& step, PieceList& list);
  static void split_at_literal(const Step& step, PieceList& list);
  void spell_bytes(const Step& step, PieceList& list) const;
  static void mark_spaces(const Step& step, PieceList& list);

  std::vector<Step> steps_;
  ByteLevelAlphabet alphabet_;
};

}  // namespace paceline::runtime
