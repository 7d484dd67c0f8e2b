#include "runtime/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>

#include "kernels/core/error.h"
#include "runtime/tokenizer/utf8.h"

namespace paceline::runtime {
namespace {

// Replace steps multiply the text's length: more than this is an attack, not a tokenizer.
constexpr std::size_t kLargestGrowth = 64;

struct AttributedCharacter {
  utf8proc_int32_t code_point;
  int combining_class;
  std::uint8_t trusted;
};

int combining_class(utf8proc_int32_t code_point) {
  return utf8proc_get_property(code_point)->combining_class;
}

/// Canonical decomposition, appended. At most 4 characters by the Unicode Standard.
void decompose(char32_t code_point, std::uint8_t trusted, std::vector<AttributedCharacter>& out) {
  std::array<utf8proc_int32_t, 8> parts{};
  int boundary_class = 0;
  const auto count =
      utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code_point), parts.data(), parts.size(),
                              UTF8PROC_DECOMPOSE, &boundary_class);
  check(count > 0 && count <= static_cast<int>(parts.size()), "U+{:04X} decomposes into {} parts",
        static_cast<std::uint32_t>(code_point), count);
  for (int i = 0; i < count; ++i) out.push_back({parts[i], combining_class(parts[i]), trusted});
}

/// Canonical ordering: each run of combining marks is sorted by class, stably.
void order_marks(std::vector<AttributedCharacter>& characters) {
  auto begin = characters.begin();
  while (begin != characters.end()) {
    if (begin->combining_class == 0) {
      ++begin;
      continue;
    }
    const auto end = std::find_if(begin, characters.end(), [](const AttributedCharacter& c) {
      return c.combining_class == 0;
    });
    std::stable_sort(begin, end, [](const AttributedCharacter& a, const AttributedCharacter& b) {
      return a.combining_class < b.combining_class;
    });
    begin = end;
  }
}

/// The primary composite of a pair (Hangul too), if there is one.
std::optional<utf8proc_int32_t> compose_pair(utf8proc_int32_t first, utf8proc_int32_t second) {
  std::array<utf8proc_int32_t, 2> pair = {first, second};
  const auto length = utf8proc_normalize_utf32(
      pair.data(), pair.size(), static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  if (length != 1) return std::nullopt;
  return pair[0];
}

/// Canonical composition (Unicode Standard, D117), in place.
void compose(std::vector<AttributedCharacter>& characters) {
  constexpr std::size_t kNone = SIZE_MAX;
  std::size_t written = 0, starter = kNone;
  int last_class = -1;  // of what stands between the starter and here; -1: nothing
  for (const AttributedCharacter c : characters) {
    if (starter != kNone && last_class < c.combining_class) {
      AttributedCharacter& base = characters[starter];
      if (const auto composite = compose_pair(base.code_point, c.code_point)) {
        base.code_point = *composite;
        base.trusted &= c.trusted;
        continue;
      }
    }
    last_class = c.combining_class;
    if (c.combining_class == 0) {
      starter = written;
      last_class = -1;
    }
    characters[written++] = c;
  }
  characters.resize(written);
}

void append(AttributedText& text, const AttributedCharacter& character) {
  append_utf8(text.bytes, static_cast<char32_t>(character.code_point));
  text.trusted.resize(text.bytes.size(), character.trusted);
}

void append(AttributedText& text, const AttributedText& from, std::size_t begin, std::size_t end) {
  text.bytes.append(from.bytes, begin, end - begin);
  text.trusted.insert(text.trusted.end(), from.trusted.begin() + static_cast<std::ptrdiff_t>(begin),
                      from.trusted.begin() + static_cast<std::ptrdiff_t>(end));
}

bool is_ascii(char c) { return static_cast<unsigned char>(c) < 0x80; }

std::uint8_t all_trusted(const AttributedText& text, std::size_t begin, std::size_t end) {
  return std::all_of(text.trusted.begin() + static_cast<std::ptrdiff_t>(begin),
                     text.trusted.begin() + static_cast<std::ptrdiff_t>(end),
                     [](std::uint8_t trusted) { return trusted != 0; });
}

void replace_all(AttributedText& text, const std::string& pattern, const std::string& content,
                 std::size_t most_bytes) {
  std::size_t found = text.bytes.find(pattern);
  if (found == std::string::npos) return;
  AttributedText replaced;
  std::size_t done = 0;
  for (; found != std::string::npos; found = text.bytes.find(pattern, done)) {
    append(replaced, text, done, found);
    done = found + pattern.size();
    if (replaced.bytes.size() + content.size() > most_bytes) {
      throw RequestError("", "the tokenizer's normalizer makes the text more than {} times longer",
                         kLargestGrowth);
    }
    replaced.bytes += content;
    replaced.trusted.resize(replaced.bytes.size(), all_trusted(text, found, done));
  }
  append(replaced, text, done, text.bytes.size());
  text = std::move(replaced);
}

}  // namespace

void normalize_nfc(AttributedText& text) {
  // Nothing below U+0300 changes or combines with what precedes it (UAX #15, NFC_Quick_Check).
  // So a region that may change is a run of non-ASCII characters, one of them from U+0300 on, with
  // the ASCII character before it.
  const auto may_change = [](char c) { return static_cast<unsigned char>(c) >= 0xCC; };
  if (std::none_of(text.bytes.begin(), text.bytes.end(), may_change)) return;
  AttributedText normalized;
  normalized.bytes.reserve(text.bytes.size());
  normalized.trusted.reserve(text.bytes.size());
  std::vector<AttributedCharacter> region;
  std::size_t at = 0;
  while (at < text.bytes.size()) {
    std::size_t ascii_end = at;
    while (ascii_end < text.bytes.size() && is_ascii(text.bytes[ascii_end])) ++ascii_end;
    const std::size_t base = ascii_end == text.bytes.size() ? ascii_end
                             : ascii_end > at               ? ascii_end - 1
                                                            : at;
    append(normalized, text, at, base);
    std::size_t end = ascii_end;
    while (end < text.bytes.size() && !is_ascii(text.bytes[end])) ++end;
    region.clear();
    for (at = base; at < end;) {
      const Utf8Step step = decode_utf8(std::string_view(text.bytes).substr(at));
      decompose(step.code_point, all_trusted(text, at, at + step.length), region);
      at += step.length;
    }
    order_marks(region);
    compose(region);
    for (const AttributedCharacter& character : region) append(normalized, character);
  }
  text = std::move(normalized);
}

Normalizer Normalizer::parse(const std::optional<JsonField>& field) {
  Normalizer normalizer;
  if (field) parse_into(*field, normalizer.steps_);
  return normalizer;
}

void Normalizer::parse_into(const JsonField& field, std::vector<Step>& steps) {
  const std::string& type = field.at("type").string();
  if (type == "Sequence") {
    field.allow_only({"type", "normalizers"});
    for (const JsonField& item : field.at("normalizers").items()) parse_into(item, steps);
  } else if (type == "NFC") {
    field.allow_only({"type"});
    steps.push_back({Kind::kNfc, "", ""});
  } else if (type == "Prepend") {
    field.allow_only({"type", "prepend"});
    steps.push_back({Kind::kPrepend, "", field.at("prepend").string()});
  } else if (type == "Replace") {
    field.allow_only({"type", "pattern", "content"});
    field.at("pattern").allow_only({"String"});
    const JsonField pattern = field.at("pattern").at("String");
    if (pattern.string().empty()) pattern.refuse("a string that is not empty");
    steps.push_back({Kind::kReplace, pattern.string(), field.at("content").string()});
  } else {
    field.at("type").refuse("NFC, Prepend, Replace or Sequence");
  }
}

void Normalizer::apply(AttributedText& text) const {
  const std::size_t most_bytes = kLargestGrowth * (text.bytes.size() + 1);
  for (const Step& step : steps_) {
    if (step.kind == Kind::kNfc) {
      normalize_nfc(text);
    } else if (step.kind == Kind::kReplace) {
      replace_all(text, step.pattern, step.content, most_bytes);
    } else if (!text.bytes.empty()) {
      text.bytes.insert(0, step.content);
      text.trusted.insert(text.trusted.begin(), step.content.size(), 1);
    }
  }
}

std::string Normalizer::apply(std::string_view text) const {
  AttributedText attributed{std::string(text), std::vector<std::uint8_t>(text.size(), 1)};
  apply(attributed);
  return std::move(attributed.bytes);
}

}  // namespace paceline::runtime
