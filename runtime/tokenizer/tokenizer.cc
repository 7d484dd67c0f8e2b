#include "runtime/tokenizer/tokenizer.h"

#include <algorithm>
#include <utility>

#include "kernels/core/error.h"
#include "runtime/tokenizer/utf8.h"

namespace paceline::runtime {
namespace {

constexpr std::size_t kLongestText = std::size_t{256} << 20;

/// The segments' concatenation with broken UTF-8 replaced. A broken part may span segments.
AttributedText join(std::span<const TextSegment> segments) {
  std::size_t size = 0;
  for (const TextSegment& segment : segments) size += segment.text.size();
  if (size > kLongestText) {
    throw RequestError("", "{} bytes of text, at most {} are accepted", size, kLongestText);
  }
  AttributedText joined;
  joined.bytes.reserve(size);
  joined.trusted.reserve(size);
  for (const TextSegment& segment : segments) {
    joined.bytes += segment.text;
    joined.trusted.resize(joined.bytes.size(), segment.trusted);
  }
  if (is_valid_utf8(joined.bytes)) return joined;
  AttributedText repaired;
  std::string_view rest = joined.bytes;
  while (!rest.empty()) {
    const Utf8Step step = decode_utf8(rest);
    const auto begin = joined.trusted.end() - static_cast<std::ptrdiff_t>(rest.size());
    const bool trusted =
        std::all_of(begin, begin + step.length, [](auto flag) { return flag != 0; });
    append_utf8(repaired.bytes, step.code_point);
    repaired.trusted.resize(repaired.bytes.size(), trusted);
    rest.remove_prefix(step.length);
  }
  return repaired;
}

AttributedText part(const AttributedText& text, const TextSplit& split) {
  const auto begin = text.trusted.begin();
  return {text.bytes.substr(split.begin, split.end - split.begin),
          {begin + static_cast<std::ptrdiff_t>(split.begin),
           begin + static_cast<std::ptrdiff_t>(split.end)}};
}

}  // namespace

Tokenizer::Tokenizer(Normalizer normalizer, PreTokenizer pre_tokenizer, BpeModel model,
                     AddedTokens added, PostProcessor post_processor, Decoder decoder)
    : normalizer_(std::move(normalizer)),
      pre_tokenizer_(std::move(pre_tokenizer)),
      model_(std::move(model)),
      added_(std::move(added)),
      post_processor_(std::move(post_processor)),
      decoder_(std::move(decoder)) {}

Tokenizer Tokenizer::load(const std::filesystem::path& model_dir) {
  const std::filesystem::path path = model_dir / "tokenizer.json";
  return parse(read_json(path), path.string());
}

Tokenizer Tokenizer::parse(const Json& tokenizer_json, std::string_view source) {
  const JsonField root(tokenizer_json, std::string(source));
  root.allow_only({"version", "truncation", "padding", "added_tokens", "normalizer",
                   "pre_tokenizer", "post_processor", "decoder", "model"});
  if (const auto version = root.find("version"); version && version->string() != "1.0") {
    version->refuse("\"1.0\"");
  }
  // A prompt is clipped and padded by nobody but the scheduler.
  for (const auto key : {"truncation", "padding"}) {
    if (const auto field = root.find(key)) field->refuse("null");
  }
  Normalizer normalizer = Normalizer::parse(root.find("normalizer"));
  PreTokenizer pre_tokenizer = PreTokenizer::parse(root.find("pre_tokenizer"));
  BpeModel model = BpeModel::parse(root.at("model"));
  AddedTokens added = AddedTokens::parse(root.find("added_tokens"), model, normalizer);
  return Tokenizer(std::move(normalizer), std::move(pre_tokenizer), std::move(model),
                   std::move(added), PostProcessor::parse(root.find("post_processor")),
                   Decoder::parse(root.find("decoder")));
}

std::vector<std::int32_t> Tokenizer::encode_text(std::string_view text) const {
  const TextSegment segment{std::string(text), false};
  return encode({&segment, 1}, false);
}

std::vector<std::int32_t> Tokenizer::encode(std::span<const TextSegment> segments,
                                            bool add_special_tokens) const {
  const AttributedText text = join(segments);
  BpeModel::Scratch scratch;
  std::vector<std::int32_t> ids;
  if (add_special_tokens) ids = post_processor_.before;
  for (const TextSplit& raw : added_.split_raw(text)) {
    if (raw.token != nullptr) {
      ids.push_back(raw.token->id);
      continue;
    }
    AttributedText normalized = part(text, raw);
    normalizer_.apply(normalized);
    for (const TextSplit& split : added_.split_normalized(normalized)) {
      if (split.token != nullptr) {
        ids.push_back(split.token->id);
      } else {
        const bool opens_input = raw.begin == 0 && split.begin == 0;
        encode_ordinary(part(normalized, split), opens_input, scratch, ids);
      }
    }
  }
  if (add_special_tokens) {
    ids.insert(ids.end(), post_processor_.after.begin(), post_processor_.after.end());
  }
  return ids;
}

void Tokenizer::encode_ordinary(const AttributedText& text, bool opens_input,
                                BpeModel::Scratch& scratch, std::vector<std::int32_t>& ids) const {
  const PieceList pieces = pre_tokenizer_.apply(text.bytes, opens_input);
  for (std::size_t i = 0; i < pieces.pieces.size(); ++i) model_.encode(pieces[i], scratch, ids);
}

const std::string* Tokenizer::spelling(std::int32_t id, bool skip_special_tokens) const {
  const AddedToken* added = added_.find(id);
  if (added == nullptr) return model_.token(id);
  // `tokenizers` 0.23 asks whether the normalized spelling is special, and so does not skip "▁<s>"
  // of an old Llama tokenizer. An end-of-sequence token has no place in an answer: the id decides.
  return skip_special_tokens && added->special ? nullptr : &added->spelling;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const {
  std::string text;
  Decoder::State state;
  for (const std::int32_t id : ids) {
    if (const std::string* token = spelling(id, skip_special_tokens)) {
      decoder_.push(state, *token, text);
    }
  }
  decoder_.finish(state, text);
  return text;
}

std::int32_t Tokenizer::vocab_size() const {
  return std::max(model_.largest_id(), added_.largest_id()) + 1;
}

bool Tokenizer::is_special(std::int32_t id) const {
  const AddedToken* added = added_.find(id);
  return added != nullptr && added->special;
}

std::optional<std::int32_t> Tokenizer::token_id(std::string_view token) const {
  if (const AddedToken* added = added_.find(token)) return added->id;
  return model_.find(token);
}

std::optional<std::string_view> Tokenizer::token(std::int32_t id) const {
  if (const AddedToken* added = added_.find(id)) return added->content;
  if (const std::string* token = model_.token(id)) return *token;
  return std::nullopt;
}

std::string StreamDecoder::push(std::int32_t id) {
  std::string text;
  if (const std::string* token = tokenizer_->spelling(id, skip_special_tokens_)) {
    tokenizer_->decoder_.push(state_, *token, text);
  }
  return text;
}

std::string StreamDecoder::finish() {
  std::string text;
  tokenizer_->decoder_.finish(state_, text);
  return text;
}

}  // namespace paceline::runtime
