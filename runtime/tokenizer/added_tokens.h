#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "runtime/tokenizer/bpe.h"
#include "runtime/tokenizer/json_field.h"
#include "runtime/tokenizer/normalizer.h"
#include "runtime/tokenizer/regex.h"

namespace paceline::runtime {

/// An entry of `added_tokens` in tokenizer.json: a token recognized in the text before BPE.
struct AddedToken {
  std::string content;
  std::int32_t id;
  bool single_word;      ///< only where no word character touches it
  bool lstrip;           ///< takes the white space before it
  bool rstrip;           ///< takes the white space after it
  bool normalized;       ///< sought in the normalized text, in its normalized spelling
  bool special;          ///< skipped by decode(skip_special_tokens)
  std::string spelling;  ///< the normalized content if `normalized`, else the content
};

/// A stretch of text: an added token, or ordinary text where `token` is null.
struct TextSplit {
  std::size_t begin, end;
  const AddedToken* token;
};

/// All added tokens of a tokenizer.
///
/// A token is recognized only where all of its characters are trusted: what a user typed is
/// ordinary text, whatever it spells. Tokens of white space alone that are not special are the
/// exception; they stand for nothing but the white space, and are found in any text.
class AddedTokens {
 public:
  /// `field` may be absent. Throws ConfigError, also where the stated id is not the one that the
  /// `tokenizers` package would give: the model's own, or the next free one.
  static AddedTokens parse(const std::optional<JsonField>& field, const BpeModel& model,
                           const Normalizer& normalizer);

  /// Splits text that is not normalized yet at the tokens with normalized = false.
  std::vector<TextSplit> split_raw(const AttributedText& text) const;
  /// Splits normalized text at the tokens with normalized = true.
  std::vector<TextSplit> split_normalized(const AttributedText& text) const;

  // Not copied: the tries point at the tokens.
  AddedTokens(AddedTokens&&) = default;
  AddedTokens& operator=(AddedTokens&&) = default;

  const AddedToken* find(std::int32_t id) const;
  const AddedToken* find(std::string_view content) const;
  std::int32_t largest_id() const { return tokens_.empty() ? -1 : tokens_.rbegin()->first; }
  const std::map<std::int32_t, AddedToken>& all() const { return tokens_; }

 private:
  /// A trie of spellings. Node 0 is the root.
  class Trie {
   public:
    /// False if the spelling is there already, or empty.
    bool insert(std::string_view spelling, const AddedToken* token);
    bool empty() const { return nodes_.size() == 1; }
    /// The longest token at `begin` whose characters may be taken for it; null if there is none.
    const AddedToken* longest(const AttributedText& text, std::size_t begin) const;

   private:
    struct Node {
      unsigned char byte;
      std::uint32_t child, sibling;  // 0: none
      const AddedToken* token;
      bool in_any_text;
    };
    std::uint32_t child_of(std::uint32_t node, unsigned char byte) const;
    std::vector<Node> nodes_ = {Node{0, 0, 0, nullptr, false}};
  };

  AddedTokens() = default;
  void add(const JsonField& field, const BpeModel& model, const Normalizer& normalizer,
           std::int32_t& next_id);
  void build_tries(const std::string& where);
  std::vector<TextSplit> split(const AttributedText& text, const Trie& trie) const;
  bool stands_alone(std::string_view text, std::size_t begin, std::size_t end) const;
  bool is_word_character(std::string_view character) const;

  std::map<std::int32_t, AddedToken> tokens_;  // by id; nodes stay where they are
  std::unordered_map<std::string, std::int32_t> ids_;
  Trie raw_, normalized_;
  std::optional<Regex> word_character_;  // set if some token has single_word
};

}  // namespace paceline::runtime
