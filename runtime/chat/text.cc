#include "runtime/chat/text.h"

#include <algorithm>
#include <cstring>

namespace paceline::runtime::chat {

void Text::append(std::string_view bytes, bool trusted) {
  if (bytes.empty()) return;
  bytes_ += bytes;
  if (!runs_.empty() && runs_.back().trusted == trusted) {
    runs_.back().end = bytes_.size();
  } else {
    runs_.push_back({bytes_.size(), trusted});
  }
}

void Text::append(const Text& other) {
  if (&other == this) {
    append(Text(other));
    return;
  }
  const std::string_view bytes = other.bytes_;
  std::size_t begin = 0;
  for (const Run& run : other.runs_) {
    append(bytes.substr(begin, run.end - begin), run.trusted);
    begin = run.end;
  }
}

Text Text::slice(std::size_t begin, std::size_t end) const {
  Text result;
  auto run = std::upper_bound(runs_.begin(), runs_.end(), begin,
                              [](std::size_t at, const Run& r) { return at < r.end; });
  const std::string_view bytes = bytes_;
  while (begin < end) {
    const std::size_t stop = std::min(end, run->end);
    result.append(bytes.substr(begin, stop - begin), run->trusted);
    begin = stop;
    ++run;
  }
  return result;
}

Text Text::with_bytes(std::string bytes) const {
  Text result;
  result.bytes_ = std::move(bytes);
  result.runs_ = runs_;
  return result;
}

std::vector<TextSegment> Text::segments() const {
  std::vector<TextSegment> result;
  result.reserve(runs_.size());
  std::size_t begin = 0;
  for (const Run& run : runs_) {
    result.push_back({bytes_.substr(begin, run.end - begin), run.trusted});
    begin = run.end;
  }
  return result;
}

namespace {

bool is_continuation(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

}  // namespace

std::size_t code_point_size(std::string_view text, std::size_t position) {
  const auto lead = static_cast<unsigned char>(text[position]);
  std::size_t size = 1;
  if (lead >= 0xC2 && lead < 0xE0) size = 2;
  if (lead >= 0xE0 && lead < 0xF0) size = 3;
  if (lead >= 0xF0 && lead < 0xF5) size = 4;
  if (position + size > text.size()) return 1;
  for (std::size_t i = 1; i < size; ++i) {
    if (!is_continuation(text[position + i])) return 1;
  }
  return size;
}

char32_t code_point_at(std::string_view text, std::size_t position) {
  const std::size_t size = code_point_size(text, position);
  const auto lead = static_cast<unsigned char>(text[position]);
  if (size == 1) return lead < 0x80 ? lead : 0xDC00u + lead;
  char32_t code_point = lead & (0x7Fu >> size);
  for (std::size_t i = 1; i < size; ++i) {
    code_point = (code_point << 6) | (static_cast<unsigned char>(text[position + i]) & 0x3Fu);
  }
  return code_point;
}

void append_utf8(std::string& out, char32_t code_point) {
  const auto byte = [&](char32_t value) { out += static_cast<char>(value); };
  if (code_point < 0x80) {
    byte(code_point);
  } else if (code_point < 0x800) {
    byte(0xC0 | (code_point >> 6));
    byte(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    byte(0xE0 | (code_point >> 12));
    byte(0x80 | ((code_point >> 6) & 0x3F));
    byte(0x80 | (code_point & 0x3F));
  } else {
    byte(0xF0 | (code_point >> 18));
    byte(0x80 | ((code_point >> 12) & 0x3F));
    byte(0x80 | ((code_point >> 6) & 0x3F));
    byte(0x80 | (code_point & 0x3F));
  }
}

std::size_t count_code_points(std::string_view text) {
  std::size_t count = 0;
  for (std::size_t at = 0; at < text.size(); at += code_point_size(text, at)) ++count;
  return count;
}

std::vector<std::size_t> code_point_offsets(std::string_view text) {
  std::vector<std::size_t> offsets;
  offsets.reserve(text.size() + 1);
  for (std::size_t at = 0; at < text.size(); at += code_point_size(text, at)) offsets.push_back(at);
  offsets.push_back(text.size());
  return offsets;
}

bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

std::size_t find_bytes(std::string_view text, std::string_view wanted, std::size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (wanted.empty()) return from;
  const void* found = memmem(text.data() + from, text.size() - from, wanted.data(), wanted.size());
  if (found == nullptr) return std::string_view::npos;
  return static_cast<std::size_t>(static_cast<const char*>(found) - text.data());
}

Text strip(const Text& text, const Text* characters, Side side) {
  std::vector<char32_t> set;
  if (characters != nullptr) {
    const std::string_view bytes = characters->bytes();
    for (std::size_t at = 0; at < bytes.size(); at += code_point_size(bytes, at)) {
      set.push_back(code_point_at(bytes, at));
    }
    std::sort(set.begin(), set.end());
  }
  const auto strips = [&](char32_t c) {
    return characters == nullptr ? is_space(c) : std::binary_search(set.begin(), set.end(), c);
  };
  const std::string_view bytes = text.bytes();
  std::size_t begin = 0;
  std::size_t end = bytes.size();
  if (side != Side::kRight) {
    while (begin < end && strips(code_point_at(bytes, begin))) {
      begin += code_point_size(bytes, begin);
    }
  }
  while (side != Side::kLeft && end > begin) {
    std::size_t start = end - 1;  // Back to the start of the last code point.
    while (start > begin && end - start < 4 && is_continuation(bytes[start])) --start;
    if (start + code_point_size(bytes, start) != end) start = end - 1;
    if (!strips(code_point_at(bytes, start))) break;
    end = start;
  }
  return text.slice(begin, end);
}

namespace {

std::vector<Text> split_at_spaces(const Text& text, std::int64_t max_splits, Budget& budget) {
  std::vector<Text> parts;
  const std::string_view bytes = text.bytes();
  std::size_t at = 0;
  const auto skip = [&](bool spaces) {
    while (at < bytes.size() && is_space(code_point_at(bytes, at)) == spaces) {
      at += code_point_size(bytes, at);
    }
  };
  for (skip(true); at < bytes.size(); skip(true)) {
    const std::size_t begin = at;
    budget.make(sizeof(Text) + 32);
    if (max_splits >= 0 && parts.size() == static_cast<std::size_t>(max_splits)) {
      parts.push_back(text.slice(begin, bytes.size()));
      break;
    }
    skip(false);
    parts.push_back(text.slice(begin, at));
  }
  return parts;
}

}  // namespace

std::vector<Text> split(const Text& text, const Text* separator, std::int64_t max_splits,
                        Budget& budget) {
  budget.make(text.size());
  if (separator == nullptr) return split_at_spaces(text, max_splits, budget);
  if (separator->empty()) throw Failure("split() by an empty separator");
  std::vector<Text> parts;
  std::size_t begin = 0;
  while (max_splits < 0 || parts.size() < static_cast<std::size_t>(max_splits)) {
    const std::size_t found = find_bytes(text.bytes(), separator->bytes(), begin);
    if (found == std::string_view::npos) break;
    budget.make(sizeof(Text) + 32);
    parts.push_back(text.slice(begin, found));
    begin = found + separator->size();
  }
  parts.push_back(text.slice(begin, text.size()));
  return parts;
}

Text replace(const Text& text, const Text& wanted, const Text& with, std::int64_t count,
             Budget& budget) {
  Text result;
  budget.make(text.size());
  std::size_t begin = 0;
  for (std::size_t search = 0; count != 0; --count) {
    const std::size_t found = find_bytes(text.bytes(), wanted.bytes(), search);
    if (found == std::string_view::npos) break;
    budget.make(with.size());
    budget.step();
    result.append(text.slice(begin, found));
    result.append(with);
    begin = found + wanted.size();
    search = begin;
    if (wanted.empty()) {  // Between all code points, as Python does.
      if (begin == text.size()) break;
      search = begin + code_point_size(text.bytes(), begin);
    }
  }
  result.append(text.slice(begin, text.size()));
  return result;
}

Text change_case(const Text& text, Case wanted) {
  std::string bytes = text.bytes();
  const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  const auto set = [&](char& c, bool upper) {
    if (upper && c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    if (!upper && c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  };
  bool starts = true;  // The next letter starts a word.
  for (char& c : bytes) {
    if (static_cast<unsigned char>(c) >= 0x80) {
      throw Failure("changing the case of text beyond ASCII is not supported");
    }
    const bool separates = std::string_view("-({[<").find(c) != std::string_view::npos ||
                           is_space(static_cast<unsigned char>(c));
    const bool letter = is_letter(c);
    set(c, wanted == Case::kUpper || (wanted != Case::kLower && starts));
    if (wanted == Case::kTitle) starts = !letter;
    if (wanted == Case::kTitleFilter) starts = separates;
    if (wanted == Case::kCapitalize) starts = false;
  }
  return text.with_bytes(std::move(bytes));
}

}  // namespace paceline::runtime::chat
