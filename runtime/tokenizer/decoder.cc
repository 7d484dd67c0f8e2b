#include "runtime/tokenizer/decoder.h"

#include <utility>

#include "kernels/core/error.h"

namespace paceline::runtime {
namespace {

constexpr std::size_t kMostStages = 32;
// Replace stages multiply a token's length; known tokenizers replace one character by one.
constexpr std::size_t kLongestContent = 16;
constexpr std::size_t kMostReplaces = 4;

std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content) {
  std::string replaced;
  std::size_t done = 0;
  for (std::size_t found = text.find(pattern); found != std::string_view::npos;
       found = text.find(pattern, done)) {
    replaced += text.substr(done, found - done);
    replaced += content;
    done = found + pattern.size();
  }
  replaced += text.substr(done);
  return replaced;
}

/// The byte that "<0xNN>" stands for. Rust's number parser, whose rule this is, takes "+N" too.
std::optional<char> byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  const int high = token[3] == '+' ? 0 : digit(token[3]), low = digit(token[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<char>(high * 16 + low);
}

const std::string& one_character(const JsonField& field) {
  const std::string& text = field.string();
  if (text.empty() || decode_utf8(text).length != text.size()) field.refuse("one character");
  return text;
}

}  // namespace

Decoder Decoder::parse(const std::optional<JsonField>& field) {
  Decoder decoder;
  if (!field) {
    decoder.stages_.push_back({.kind = Kind::kSpaces, .pattern = "", .content = ""});
    return decoder;
  }
  parse_into(*field, decoder.stages_);
  std::size_t replaces = 0;
  bool fused = false;
  for (Stage& stage : decoder.stages_) {
    stage.fused = fused;
    if (fused && stage.kind != Kind::kFuse && stage.kind != Kind::kStrip) {
      field->refuse("nothing but Strip after Fuse or ByteLevel");
    }
    fused = fused || stage.kind == Kind::kFuse || stage.kind == Kind::kByteLevel;
    replaces += stage.kind == Kind::kReplace;
  }
  if (decoder.stages_.size() > kMostStages || replaces > kMostReplaces) {
    field->refuse(
        fmt::format("at most {} decoders, {} of them Replace", kMostStages, kMostReplaces));
  }
  return decoder;
}

void Decoder::parse_into(const JsonField& field, std::vector<Stage>& stages) {
  const std::string& type = field.at("type").string();
  if (type == "Sequence") {
    field.allow_only({"type", "decoders"});
    for (const JsonField& item : field.at("decoders").items()) parse_into(item, stages);
  } else if (type == "Replace") {
    field.allow_only({"type", "pattern", "content"});
    field.at("pattern").allow_only({"String"});
    const JsonField pattern = field.at("pattern").at("String");
    const JsonField content = field.at("content");
    if (pattern.string().empty()) pattern.refuse("a string that is not empty");
    if (content.string().size() > kLongestContent) {
      content.refuse(fmt::format("at most {} bytes", kLongestContent));
    }
    stages.push_back(
        {.kind = Kind::kReplace, .pattern = pattern.string(), .content = content.string()});
  } else if (type == "ByteFallback" || type == "Fuse") {
    field.allow_only({"type"});
    stages.push_back(
        {.kind = type == "Fuse" ? Kind::kFuse : Kind::kByteFallback, .pattern = "", .content = ""});
  } else if (type == "Strip") {
    stages.push_back(parse_strip(field));
  } else if (type == "ByteLevel") {
    field.allow_only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
    stages.push_back({.kind = Kind::kByteLevel, .pattern = "", .content = ""});
  } else if (type == "Metaspace") {
    stages.push_back(parse_metaspace(field));
  } else {
    field.at("type").refuse("Replace, ByteFallback, Fuse, Strip, ByteLevel, Metaspace or Sequence");
  }
}

Decoder::Stage Decoder::parse_strip(const JsonField& field) {
  field.allow_only({"type", "content", "start", "stop"});
  Stage stage{.kind = Kind::kStrip, .pattern = one_character(field.at("content")), .content = ""};
  stage.count = static_cast<std::uint64_t>(field.at("start").count(INT32_MAX));
  if (field.at("stop").count(INT32_MAX) != 0) {
    field.at("stop").refuse("0: only the start can be stripped");
  }
  return stage;
}

Decoder::Stage Decoder::parse_metaspace(const JsonField& field) {
  field.allow_only(
      {"type", "replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep"});
  Stage stage{
      .kind = Kind::kMetaspace, .pattern = one_character(field.at("replacement")), .content = " "};
  const auto scheme = field.find("prepend_scheme");
  const std::string name = scheme ? scheme->string() : "always";
  if (name != "always" && name != "first" && name != "never") {
    scheme->refuse("always, first or never");
  }
  stage.drops_first = name != "never";
  if (!field.boolean_or("add_prefix_space", true) && stage.drops_first) {
    field.at("add_prefix_space").refuse("no contradiction to prepend_scheme");
  }
  return stage;
}

void Decoder::push(State& state, std::string_view token, std::string& text) const {
  state.stages.resize(stages_.size());
  advance(0, token, state, text);
}

void Decoder::finish(State& state, std::string& text) const {
  state.stages.resize(stages_.size());
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    end_byte_run(i, state, text);
    const std::string rest = state.stages[i].characters.finish();
    if (!rest.empty()) advance(i + 1, rest, state, text);
  }
  state = State();
}

void Decoder::advance(std::size_t index, std::string_view token, State& state,
                      std::string& text) const {
  if (index == stages_.size()) {
    text += token;
    return;
  }
  const Stage& stage = stages_[index];
  State::Stage& kept = state.stages[index];
  switch (stage.kind) {
    case Kind::kReplace:
      return advance(index + 1, replace_all(token, stage.pattern, stage.content), state, text);
    case Kind::kByteFallback:
      if (const auto byte = byte_of_token(token)) {
        kept.byte_tokens.push_back(*byte);
        return;
      }
      end_byte_run(index, state, text);
      return advance(index + 1, token, state, text);
    case Kind::kFuse:
      return advance(index + 1, token, state, text);
    case Kind::kStrip:
      if (!stage.fused) kept.seen = 0;
      return advance(index + 1, strip(stage, token, kept.seen), state, text);
    case Kind::kByteLevel: {
      const auto bytes = alphabet_.unspell(token);
      const std::string characters = kept.characters.push(bytes ? std::string_view(*bytes) : token);
      if (!characters.empty()) advance(index + 1, characters, state, text);
      return;
    }
    case Kind::kMetaspace: {
      const bool drops = stage.drops_first && kept.seen++ == 0;
      return advance(index + 1, replace_all(token, stage.pattern, drops ? "" : stage.content),
                     state, text);
    }
    case Kind::kSpaces:
      if (kept.seen++ > 0) text += ' ';
      return advance(index + 1, token, state, text);
  }
}

void Decoder::end_byte_run(std::size_t index, State& state, std::string& text) const {
  const std::string run = std::exchange(state.stages[index].byte_tokens, {});
  if (run.empty()) return;
  if (is_valid_utf8(run)) return advance(index + 1, run, state, text);
  std::string replacement;
  append_utf8(replacement, kReplacementCharacter);
  for (std::size_t i = 0; i < run.size(); ++i) advance(index + 1, replacement, state, text);
}

std::string_view Decoder::strip(const Stage& stage, std::string_view token, std::uint64_t& seen) {
  while (seen < stage.count && token.starts_with(stage.pattern)) {
    token.remove_prefix(stage.pattern.size());
    ++seen;
  }
  if (!token.empty()) seen = stage.count;  // something else stands first now
  return token;
}

}  // namespace paceline::runtime
