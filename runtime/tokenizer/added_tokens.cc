#include "runtime/tokenizer/added_tokens.h"

#include <algorithm>

#include "kernels/core/error.h"
#include "runtime/tokenizer/utf8.h"

namespace paceline::runtime {
namespace {

constexpr std::size_t kLongestSpelling = 4096;

bool is_all_white_space(std::string_view text) {
  while (!text.empty()) {
    const Utf8Step step = decode_utf8(text);
    if (!is_white_space(step.code_point)) return false;
    text.remove_prefix(step.length);
  }
  return true;
}

/// Where the white space that ends at `end` begins, at `least` or later.
std::size_t white_space_begin(std::string_view text, std::size_t end, std::size_t least) {
  while (end > least) {
    const Utf8Step step = decode_utf8_before(text, end);
    if (!is_white_space(step.code_point)) break;
    end -= step.length;
  }
  return end;
}

std::size_t white_space_end(std::string_view text, std::size_t begin) {
  while (begin < text.size()) {
    const Utf8Step step = decode_utf8(text.substr(begin));
    if (!is_white_space(step.code_point)) break;
    begin += step.length;
  }
  return begin;
}

}  // namespace

std::uint32_t AddedTokens::Trie::child_of(std::uint32_t node, unsigned char byte) const {
  std::uint32_t child = nodes_[node].child;
  while (child != 0 && nodes_[child].byte != byte) child = nodes_[child].sibling;
  return child;
}

bool AddedTokens::Trie::insert(std::string_view spelling, const AddedToken* token) {
  std::uint32_t node = 0;
  for (const char c : spelling) {
    const auto byte = static_cast<unsigned char>(c);
    std::uint32_t child = child_of(node, byte);
    if (child == 0) {
      child = static_cast<std::uint32_t>(nodes_.size());
      nodes_.push_back({byte, 0, nodes_[node].child, nullptr, false});
      nodes_[node].child = child;
    }
    node = child;
  }
  if (node == 0 || nodes_[node].token != nullptr) return false;
  nodes_[node].token = token;
  nodes_[node].in_any_text = !token->special && is_all_white_space(token->content);
  return true;
}

const AddedToken* AddedTokens::Trie::longest(const AttributedText& text, std::size_t begin) const {
  const AddedToken* found = nullptr;
  std::uint32_t node = 0;
  bool trusted = true;
  for (std::size_t i = begin; i < text.bytes.size(); ++i) {
    node = child_of(node, static_cast<unsigned char>(text.bytes[i]));
    if (node == 0) break;
    trusted = trusted && text.trusted[i] != 0;
    if (nodes_[node].token != nullptr && (trusted || nodes_[node].in_any_text)) {
      found = nodes_[node].token;
    }
  }
  return found;
}

AddedTokens AddedTokens::parse(const std::optional<JsonField>& field, const BpeModel& model,
                               const Normalizer& normalizer) {
  AddedTokens tokens;
  if (!field) return tokens;
  auto next_id = static_cast<std::int32_t>(model.size());
  for (const JsonField& item : field->items()) tokens.add(item, model, normalizer, next_id);
  tokens.build_tries(field->where());
  return tokens;
}

void AddedTokens::add(const JsonField& field, const BpeModel& model, const Normalizer& normalizer,
                      std::int32_t& next_id) {
  field.allow_only({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
  AddedToken token;
  token.content = field.at("content").string();
  token.single_word = field.at("single_word").boolean();
  token.lstrip = field.at("lstrip").boolean();
  token.rstrip = field.at("rstrip").boolean();
  token.normalized = field.at("normalized").boolean();
  token.special = field.at("special").boolean();
  if (token.content.empty() || token.content.size() > kLongestSpelling) {
    field.at("content").refuse(fmt::format("a string of 1 to {} bytes", kLongestSpelling));
  }
  token.spelling = token.normalized ? normalizer.apply(token.content) : token.content;
  token.id = static_cast<std::int32_t>(field.at("id").count(kMostTokens - 1));
  const AddedToken* same = find(token.content);
  const auto known = same != nullptr ? std::optional(same->id) : model.find(token.content);
  const std::int32_t expected = known ? *known : next_id++;
  if (token.id != expected) {
    field.at("id").refuse(
        fmt::format("{} for \"{}\": the id in the vocabulary, or the next one after it", expected,
                    token.content));
  }
  ids_[token.content] = token.id;
  tokens_[token.id] = std::move(token);
}

void AddedTokens::build_tries(const std::string& where) {
  for (const auto& [id, token] : tokens_) {
    if (!(token.normalized ? normalized_ : raw_).insert(token.spelling, &token)) {
      throw ConfigError("{}: \"{}\" (id {}) normalizes to nothing or to another token's spelling",
                        where, token.content, id);
    }
    if (token.single_word && !word_character_) {
      // What Rust's `regex` calls a word character.
      word_character_.emplace("^[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}]", where);
    }
  }
}

std::vector<TextSplit> AddedTokens::split_raw(const AttributedText& text) const {
  return split(text, raw_);
}

std::vector<TextSplit> AddedTokens::split_normalized(const AttributedText& text) const {
  return split(text, normalized_);
}

std::vector<TextSplit> AddedTokens::split(const AttributedText& text, const Trie& trie) const {
  std::vector<TextSplit> splits;
  const std::string_view bytes = text.bytes;
  std::size_t done = 0, at = trie.empty() ? bytes.size() : 0;
  while (at < bytes.size()) {
    const AddedToken* token = trie.longest(text, at);
    if (token == nullptr) {
      ++at;
      continue;
    }
    std::size_t begin = at, end = at + token->spelling.size();
    at = end;
    if (token->single_word && !stands_alone(bytes, begin, end)) continue;
    if (token->lstrip) begin = std::max(white_space_begin(bytes, begin, done), done);
    if (token->rstrip) end = white_space_end(bytes, end);
    if (done < begin) splits.push_back({done, begin, nullptr});
    splits.push_back({begin, end, token});
    done = end;
  }
  if (done < bytes.size()) splits.push_back({done, bytes.size(), nullptr});
  return splits;
}

bool AddedTokens::stands_alone(std::string_view text, std::size_t begin, std::size_t end) const {
  if (begin > 0) {
    const std::size_t length = decode_utf8_before(text, begin).length;
    if (is_word_character(text.substr(begin - length, length))) return false;
  }
  if (end == text.size()) return true;
  return !is_word_character(text.substr(end, decode_utf8(text.substr(end)).length));
}

bool AddedTokens::is_word_character(std::string_view character) const {
  bool matches = false;
  word_character_->for_each_match(character, [&](std::size_t, std::size_t) { matches = true; });
  return matches;
}

const AddedToken* AddedTokens::find(std::int32_t id) const {
  const auto found = tokens_.find(id);
  return found == tokens_.end() ? nullptr : &found->second;
}

const AddedToken* AddedTokens::find(std::string_view content) const {
  const auto found = ids_.find(std::string(content));
  return found == ids_.end() ? nullptr : find(found->second);
}

}  // namespace paceline::runtime
