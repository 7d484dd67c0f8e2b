#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "runtime/chat/value.h"

/// Values as text: Python's str(), repr() and json.dumps().
namespace paceline::runtime::chat {

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific);
  const std::string_view shortest(buffer, static_cast<std::size_t>(end.ptr - buffer));
  // The shortest digits that read back, d.ddde+XX; Python writes exponents from -4 to 15 out.
  const std::size_t e = shortest.find('e');
  int exponent = 0;
  const char* digits_of_exponent = shortest.data() + e + 1 + (shortest[e + 1] == '+');
  std::from_chars(digits_of_exponent, shortest.data() + shortest.size(), exponent);
  if (exponent < -4 || exponent >= 16) return std::string(shortest);
  const auto fixed =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::fixed);
  std::string text(buffer, fixed.ptr);
  if (text.find('.') == std::string::npos) text += ".0";
  return text;
}

namespace {

/// Whether repr() escapes a code point beyond ASCII: white space, controls, private and format
/// characters. Unassigned code points, which Python escapes as well, are written as they are.
bool is_hidden(char32_t c) {
  return (c >= 0x80 && is_space(c)) || (c >= 0x7F && c <= 0x9F) || c == 0xAD ||
         (c >= 0x200B && c <= 0x200F) || (c >= 0x202A && c <= 0x202E) ||
         (c >= 0x2060 && c <= 0x206F) || (c >= 0xD800 && c <= 0xF8FF) || c == 0xFEFF ||
         (c >= 0xFFF0 && c <= 0xFFFB) || (c & 0xFFFE) == 0xFFFE || c >= 0xE0000;
}

void append_string_repr(std::string& out, std::string_view text) {
  const bool doubled = text.find('\'') != text.npos && text.find('"') == text.npos;
  const char quote = doubled ? '"' : '\'';
  out += quote;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t size = code_point_size(text, at);
    const char32_t c = code_point_at(text, at);
    if (c == static_cast<unsigned char>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c < 0x20 || is_hidden(c)) {
      const auto code = static_cast<std::uint32_t>(c);
      out += c < 0x100     ? fmt::format("\\x{:02x}", code)
             : c < 0x10000 ? fmt::format("\\u{:04x}", code)
                           : fmt::format("\\U{:08x}", code);
    } else {
      out += text.substr(at, size);
    }
    at += size;
  }
  out += quote;
}

/// Python's repr(), into one growing string. Values nest at most kMaxValueDepth deep, but a list
/// may hold another twice, so what is written is charged as it grows.
void append_repr(std::string& out, const Value& value, Budget& budget) {
  const std::size_t before = out.size();
  budget.step();
  std::int64_t whole = 0;
  if (value.is_undefined()) {
    out += "Undefined";
  } else if (value.is_none()) {
    out += "None";
  } else if (value.is_bool()) {
    out += value.truthy() ? "True" : "False";
  } else if (value.integer(whole)) {
    out += fmt::format("{}", whole);
  } else if (const double* real = value.floating()) {
    out += float_text(*real);
  } else if (const Text* text = value.text()) {
    append_string_repr(out, text->bytes());
  } else if (const Sequence* list = value.sequence()) {
    out += list->tuple ? "(" : "[";
    for (std::size_t i = 0; i < list->items.size(); ++i) {
      if (i > 0) out += ", ";
      append_repr(out, list->items[i], budget);
    }
    if (list->tuple && list->items.size() == 1) out += ",";
    out += list->tuple ? ")" : "]";
    return;
  } else if (const Mapping* map = value.mapping()) {
    out += "{";
    for (std::size_t i = 0; i < map->entries.size(); ++i) {
      if (i > 0) out += ", ";
      append_repr(out, map->entries[i].first, budget);
      out += ": ";
      append_repr(out, map->entries[i].second, budget);
    }
    out += "}";
    return;
  } else {
    throw Failure(fmt::format("a {} cannot be printed", value.type_name()));
  }
  budget.make(out.size() - before);
}

}  // namespace

Text to_text(const Value& value, Budget& budget) {
  if (value.is_undefined()) return {};
  if (const Text* text = value.text()) {
    budget.make(text->size());
    return *text;
  }
  std::string out;
  append_repr(out, value, budget);
  return Text(out, false);
}

namespace {

void append_json_string(std::string& out, std::string_view text, bool ascii) {
  out += '"';
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t size = code_point_size(text, at);
    const char32_t c = code_point_at(text, at);
    constexpr std::string_view kEscaped = "\"\\\n\r\t\f\b";
    constexpr std::string_view kLetters = "\"\\nrtfb";
    const std::size_t escape =
        c < 0x80 ? kEscaped.find(static_cast<char>(c)) : std::string_view::npos;
    if (escape != std::string_view::npos) {
      out += '\\';
      out += kLetters[escape];
    } else if (c < 0x20 || (ascii && c >= 0x7F && c < 0x10000)) {
      out += fmt::format("\\u{:04x}", static_cast<std::uint32_t>(c));
    } else if (ascii && c >= 0x10000) {
      const auto code = static_cast<std::uint32_t>(c) - 0x10000;
      out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (code >> 10), 0xDC00 + (code & 0x3FF));
    } else {
      out += text.substr(at, size);
    }
    at += size;
  }
  out += '"';
}

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, Budget& budget) : style_(style), budget_(budget) {}

  void write(const Value& value, int level) {
    const std::size_t before = out.size();
    budget_.step();
    if (const Sequence* list = value.sequence()) {
      out += '[';
      for (std::size_t i = 0; i < list->items.size(); ++i) {
        separate(i, level + 1);
        write(list->items[i], level + 1);
      }
      close(']', list->items.empty(), level);
    } else if (const Mapping* map = value.mapping()) {
      write_mapping(*map, level);
    } else {
      write_scalar(value);
      budget_.make(out.size() - before);
    }
  }

  std::string out;

 private:
  void close(char bracket, bool empty, int level) {
    if (!empty) break_line(level);
    out += bracket;
  }

  void break_line(int level) {
    if (style_.indent < 0) return;
    const auto spaces = static_cast<std::size_t>(style_.indent) * static_cast<std::size_t>(level);
    budget_.make(1 + spaces);
    out += '\n';
    out.append(spaces, ' ');
  }

  void separate(std::size_t index, int level) {
    if (index > 0) {
      budget_.make(style_.item_separator.size());
      out += style_.item_separator;
    }
    break_line(level);
  }

  void write_mapping(const Mapping& map, int level) {
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : map.entries) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(), [&](const auto* a, const auto* b) {
        return order(a->first, b->first, budget_) < 0;
      });
    }
    out += '{';
    for (std::size_t i = 0; i < entries.size(); ++i) {
      separate(i, level + 1);
      const Value& key = entries[i]->first;
      const std::size_t before = out.size();
      if (const Text* text = key.text()) {
        append_json_string(out, text->bytes(), style_.ascii);
      } else {
        out += '"';
        write_scalar(key);
        out += '"';
      }
      out += style_.key_separator;
      budget_.make(out.size() - before);
      write(entries[i]->second, level + 1);
    }
    close('}', entries.empty(), level);
  }

  void write_scalar(const Value& value) {
    std::int64_t whole = 0;
    if (value.is_none()) {
      out += "null";
    } else if (value.is_bool()) {
      out += value.truthy() ? "true" : "false";
    } else if (value.integer(whole)) {
      out += fmt::format("{}", whole);
    } else if (const double* real = value.floating()) {
      out += std::isnan(*real)   ? "NaN"
             : std::isinf(*real) ? (*real < 0 ? "-Infinity" : "Infinity")
                                 : float_text(*real);
    } else if (const Text* text = value.text()) {
      append_json_string(out, text->bytes(), style_.ascii);
    } else {
      throw Failure(fmt::format("tojson cannot write a {}", value.type_name()));
    }
  }

  const JsonStyle& style_;
  Budget& budget_;
};

}  // namespace

Text to_json(const Value& value, const JsonStyle& style, Budget& budget) {
  JsonWriter writer(style, budget);
  writer.write(value, 0);
  return Text(writer.out, false);
}

}  // namespace paceline::runtime::chat
