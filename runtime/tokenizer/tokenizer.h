#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/files/json.h"
#include "runtime/tokenizer/added_tokens.h"
#include "runtime/tokenizer/bpe.h"
#include "runtime/tokenizer/decoder.h"
#include "runtime/tokenizer/normalizer.h"
#include "runtime/tokenizer/post_processor.h"
#include "runtime/tokenizer/pre_tokenizer.h"
#include "runtime/tokenizer/text_segment.h"

namespace paceline::runtime {

/// Text to token ids and back, as a Hugging Face `tokenizer.json` states it: byte-level BPE (GPT-2,
/// Llama 3, Qwen2, SmolLM) and SentencePiece-style BPE with byte fallback (Llama 2, Vicuna). Gives
/// the ids and the text of the `tokenizers` package (0.23). Immutable: threads may share one.
class Tokenizer {
 public:
  /// Reads `model_dir`/tokenizer.json. Throws ConfigError naming the file and the key for what is
  /// missing, malformed or not supported.
  static Tokenizer load(const std::filesystem::path& model_dir);
  /// `source` names the document in messages.
  static Tokenizer parse(const Json& tokenizer_json, std::string_view source);

  /// The ids of text that a user typed: no special token, even if it spells "<|im_start|>", and no
  /// tokens around it. Broken UTF-8 is read as U+FFFD. Time is O(n log n) in the text's length.
  /// Throws RequestError if the text is longer than 256 MiB or the tokenizer's pattern fails on it.
  std::vector<std::int32_t> encode_text(std::string_view text) const;

  /// The ids of the segments' concatenation: neighbouring segments are one text, cut nowhere but at
  /// added tokens. An added token lies in trusted text as a whole. `add_special_tokens` puts the
  /// tokens of the post-processor (beginning and end of sequence) around it. Else as encode_text.
  std::vector<std::int32_t> encode(std::span<const TextSegment> segments,
                                   bool add_special_tokens) const;

  /// The text of `ids`; ids without a token are skipped. Bytes that are no character become U+FFFD.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const;

  /// One more than the largest id. The model's own `vocab_size` may be larger.
  std::int32_t vocab_size() const;
  bool is_special(std::int32_t id) const;
  /// The id whose token is spelled so in tokenizer.json, e.g. "</s>" or "Ġthe".
  std::optional<std::int32_t> token_id(std::string_view token) const;
  /// The token's spelling; nothing if there is no such id.
  std::optional<std::string_view> token(std::int32_t id) const;

 private:
  friend class StreamDecoder;
  Tokenizer(Normalizer normalizer, PreTokenizer pre_tokenizer, BpeModel model, AddedTokens added,
            PostProcessor post_processor, Decoder decoder);

  /// What the decoder gets for an id; null: nothing.
  const std::string* spelling(std::int32_t id, bool skip_special_tokens) const;
  void encode_ordinary(const AttributedText& text, bool opens_input, BpeModel::Scratch& scratch,
                       std::vector<std::int32_t>& ids) const;

  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  BpeModel model_;
  AddedTokens added_;
  PostProcessor post_processor_;
  Decoder decoder_;
};

/// Decodes ids as they are generated. The concatenation of all push() and finish() equals
/// Tokenizer::decode of all ids; each piece is valid UTF-8, never half a character: what later ids
/// may still change is held back. The tokenizer must outlive it.
class StreamDecoder {
 public:
  StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens)
      : tokenizer_(&tokenizer), skip_special_tokens_(skip_special_tokens) {}

  std::string push(std::int32_t id);
  /// The rest; the decoder is then as new.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  Decoder::State state_;
};

}  // namespace paceline::runtime
