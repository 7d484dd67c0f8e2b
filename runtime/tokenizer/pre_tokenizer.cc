#include "runtime/tokenizer/pre_tokenizer.h"

#include <algorithm>

#include "kernels/core/error.h"
#include "runtime/tokenizer/regex_dialect.h"
#include "runtime/tokenizer/utf8.h"

namespace paceline::runtime {
namespace {

using Piece = PieceList::Piece;

// GPT-2's pattern (Radford et al. 2019), which ByteLevel applies with use_regex.
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Numeric characters: Oniguruma's \p{N} knows Unicode 16, Rust's char::is_numeric Unicode 17 too.
constexpr std::string_view kNumericSince17 = R"(|[\x{11de0}-\x{11de9}\x{16ff4}-\x{16ff6}])";

// What a file may ask for; each step costs a pass over the text.
constexpr std::size_t kMostSteps = 32;

Regex compile(std::string_view pattern, const std::string& where) {
  return Regex(translate_oniguruma(pattern, where), where);
}

/// Prefixes every piece that `wants` with `prefix`.
template <typename Wants>
void prepend_to_pieces(PieceList& list, const std::string& prefix, const Wants& wants) {
  PieceList prefixed;
  prefixed.text.reserve(list.text.size() + prefix.size());
  for (std::size_t i = 0; i < list.pieces.size(); ++i) {
    const std::size_t begin = prefixed.text.size();
    if (wants(i)) prefixed.text += prefix;
    prefixed.text += list[i];
    prefixed.pieces.push_back({begin, prefixed.text.size(), list.pieces[i].opens_input});
  }
  list = std::move(prefixed);
}

}  // namespace

PreTokenizer PreTokenizer::parse(const std::optional<JsonField>& field) {
  PreTokenizer pre_tokenizer;
  if (field) parse_into(*field, pre_tokenizer.steps_);
  return pre_tokenizer;
}

void PreTokenizer::parse_into(const JsonField& field, std::vector<Step>& steps) {
  const std::string& type = field.at("type").string();
  if (type == "Sequence") {
    field.allow_only({"type", "pretokenizers"});
    for (const JsonField& item : field.at("pretokenizers").items()) parse_into(item, steps);
    return;
  }
  if (steps.size() == kMostSteps) field.refuse(fmt::format("at most {} steps", kMostSteps));
  if (type == "Split") {
    steps.push_back(parse_split(field));
  } else if (type == "Digits") {
    field.allow_only({"type", "individual_digits"});
    Step step{.kind = Kind::kDigits, .pattern = {}, .literal = {}};
    step.joins_equal = !field.at("individual_digits").boolean();
    const std::string numeric = translate_oniguruma("\\p{N}", field.where());
    step.pattern.emplace(numeric + std::string(kNumericSince17), field.where());
    steps.push_back(std::move(step));
  } else if (type == "ByteLevel") {
    steps.push_back(parse_byte_level(field));
  } else if (type == "Metaspace") {
    steps.push_back(parse_metaspace(field));
  } else {
    field.at("type").refuse("Split, Digits, ByteLevel, Metaspace or Sequence");
  }
  // These make the text longer, so a file must not chain them.
  const Kind kind = steps.back().kind;
  const auto same = [&](const Step& step) { return step.kind == kind; };
  if ((kind == Kind::kByteLevel || kind == Kind::kMetaspace) &&
      std::count_if(steps.begin(), steps.end(), same) > 1) {
    field.at("type").refuse("ByteLevel and Metaspace once each");
  }
}

PreTokenizer::Step PreTokenizer::parse_split(const JsonField& field) {
  field.allow_only({"type", "pattern", "behavior", "invert"});
  Step step{.kind = Kind::kSplit, .pattern = {}, .literal = {}};
  const JsonField pattern = field.at("pattern");
  pattern.allow_only({"Regex", "String"});
  if (const auto regex = pattern.find("Regex")) {
    step.pattern = compile(regex->string(), regex->where());
  } else {
    step.literal = pattern.at("String").string();
    if (step.literal.empty()) pattern.at("String").refuse("a string that is not empty");
  }
  const JsonField behavior = field.at("behavior");
  step.removes = behavior.string() == "Removed";
  if (!step.removes && behavior.string() != "Isolated") behavior.refuse("Isolated or Removed");
  step.inverted = field.at("invert").boolean();
  return step;
}

PreTokenizer::Step PreTokenizer::parse_byte_level(const JsonField& field) {
  field.allow_only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
  Step step{.kind = Kind::kByteLevel, .pattern = {}, .literal = {}};
  if (field.at("add_prefix_space").boolean()) step.prepend = Prepend::kAlways;
  if (field.boolean_or("use_regex", true)) step.pattern = compile(kGpt2Pattern, field.where());
  return step;
}

PreTokenizer::Step PreTokenizer::parse_metaspace(const JsonField& field) {
  field.allow_only(
      {"type", "replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep"});
  Step step{.kind = Kind::kMetaspace, .pattern = {}, .literal = {}};
  const JsonField replacement = field.at("replacement");
  step.literal = replacement.string();
  if (step.literal.empty() || decode_utf8(step.literal).length != step.literal.size()) {
    replacement.refuse("one character");
  }
  step.splits = field.boolean_or("split", true);
  const auto scheme = field.find("prepend_scheme");
  const std::string name = scheme ? scheme->string() : "always";
  if (name == "always") {
    step.prepend = Prepend::kAlways;
  } else if (name == "first") {
    step.prepend = Prepend::kFirst;
  } else if (name != "never") {
    scheme->refuse("always, first or never");
  }
  if (!field.boolean_or("add_prefix_space", true) && step.prepend != Prepend::kNever) {
    field.at("add_prefix_space").refuse("no contradiction to prepend_scheme");
  }
  return step;
}

PieceList PreTokenizer::apply(std::string_view text, bool opens_input) const {
  PieceList list{std::string(text), {}};
  if (!text.empty()) list.pieces.push_back({0, text.size(), opens_input});
  for (const Step& step : steps_) {
    switch (step.kind) {
      case Kind::kSplit:
        step.pattern ? split_at_matches(step, list) : split_at_literal(step, list);
        break;
      case Kind::kDigits:
        split_at_matches(step, list);
        break;
      case Kind::kByteLevel:
        spell_bytes(step, list);
        break;
      case Kind::kMetaspace:
        mark_spaces(step, list);
        break;
    }
  }
  return list;
}

void PreTokenizer::split_at_matches(const Step& step, PieceList& list) {
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i < list.pieces.size(); ++i) {
    const Piece whole = list.pieces[i];
    bool last_matched = false;
    const auto add = [&](std::size_t begin, std::size_t end, bool matched) {
      if (begin == end || (step.removes && matched != step.inverted)) return;
      if (step.joins_equal && matched && last_matched && pieces.back().end == begin) {
        pieces.back().end = end;
      } else {
        pieces.push_back({begin, end, whole.opens_input && begin == whole.begin});
      }
      last_matched = matched;
    };
    std::size_t done = whole.begin;
    step.pattern->for_each_match(list[i], [&](std::size_t begin, std::size_t end) {
      add(done, whole.begin + begin, false);
      done = whole.begin + end;
      add(whole.begin + begin, done, true);
    });
    add(done, whole.end, false);
  }
  list.pieces = std::move(pieces);
}

void PreTokenizer::split_at_literal(const Step& step, PieceList& list) {
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i < list.pieces.size(); ++i) {
    const Piece whole = list.pieces[i];
    const auto add = [&](std::size_t begin, std::size_t end, bool matched) {
      if (begin == end || (step.removes && matched != step.inverted)) return;
      pieces.push_back({begin, end, whole.opens_input && begin == whole.begin});
    };
    std::size_t done = whole.begin;
    const std::string_view text = std::string_view(list.text).substr(0, whole.end);
    for (std::size_t found = text.find(step.literal, done); found != std::string_view::npos;
         found = text.find(step.literal, done)) {
      add(done, found, false);
      done = found + step.literal.size();
      add(found, done, true);
    }
    add(done, whole.end, false);
  }
  list.pieces = std::move(pieces);
}

void PreTokenizer::spell_bytes(const Step& step, PieceList& list) const {
  if (step.prepend == Prepend::kAlways) {
    prepend_to_pieces(list, " ", [&](std::size_t i) { return !list[i].starts_with(' '); });
  }
  if (step.pattern) split_at_matches(step, list);
  PieceList spelled;
  spelled.text.reserve(list.text.size() + list.text.size() / 4);
  spelled.pieces.reserve(list.pieces.size());
  for (std::size_t i = 0; i < list.pieces.size(); ++i) {
    const std::size_t begin = spelled.text.size();
    alphabet_.append_spelled(list[i], spelled.text);
    spelled.pieces.push_back({begin, spelled.text.size(), list.pieces[i].opens_input});
  }
  list = std::move(spelled);
}

void PreTokenizer::mark_spaces(const Step& step, PieceList& list) {
  PieceList marked;
  marked.text.reserve(list.text.size() + list.text.size() / 4);
  for (std::size_t i = 0; i < list.pieces.size(); ++i) {
    const Piece whole = list.pieces[i];
    const std::size_t begin = marked.text.size();
    const bool wanted =
        step.prepend == Prepend::kAlways || (step.prepend == Prepend::kFirst && whole.opens_input);
    if (wanted && !list[i].starts_with(' ') && !list[i].starts_with(step.literal)) {
      marked.text += step.literal;
    }
    for (const char c : list[i]) {
      if (c == ' ') {
        marked.text += step.literal;
      } else {
        marked.text += c;
      }
    }
    std::size_t done = begin;
    std::size_t mark = step.splits ? marked.text.find(step.literal, begin + 1) : std::string::npos;
    for (; mark != std::string::npos; mark = marked.text.find(step.literal, mark + 1)) {
      marked.pieces.push_back({done, mark, whole.opens_input && done == begin});
      done = mark;
    }
    marked.pieces.push_back({done, marked.text.size(), whole.opens_input && done == begin});
  }
  list = std::move(marked);
}

}  // namespace paceline::runtime
