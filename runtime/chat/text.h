#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/chat/budget.h"
#include "runtime/tokenizer/text_segment.h"

/// Strings of the chat template language: UTF-8 whose every byte knows whether it is trusted.
namespace paceline::runtime::chat {

/// A UTF-8 string made of runs, each trusted or not (see TextSegment). Whatever joins, cuts or
/// rearranges strings does so on this type, so provenance follows the bytes by construction:
/// Text("<|", true) + Text("x", false) has the runs "<|" trusted and "x" untrusted.
class Text {
 public:
  Text() = default;
  Text(std::string_view bytes, bool trusted) { append(bytes, trusted); }

  void append(std::string_view bytes, bool trusted);
  void append(const Text& other);

  /// Bytes [begin, end), with their provenance. begin <= end <= size().
  Text slice(std::size_t begin, std::size_t end) const;

  /// The same runs over `bytes`, which must have size() bytes (ASCII case mapping).
  Text with_bytes(std::string bytes) const;

  /// Adjacent runs of one provenance are one segment; no segment is empty.
  std::vector<TextSegment> segments() const;

  const std::string& bytes() const { return bytes_; }
  std::size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }

 private:
  struct Run {
    std::size_t end;  ///< One past its last byte.
    bool trusted;
  };
  std::string bytes_;
  std::vector<Run> runs_;
};

/// Length in bytes of the code point at `position` (1 for a byte that is not valid UTF-8).
std::size_t code_point_size(std::string_view text, std::size_t position);

/// The code point at `position`; an invalid byte b is U+DC00 + b, which no valid text holds.
char32_t code_point_at(std::string_view text, std::size_t position);

void append_utf8(std::string& out, char32_t code_point);

std::size_t count_code_points(std::string_view text);

/// Byte offset at which each code point starts, and the size at the end: "aé" gives {0, 1, 3}.
std::vector<std::size_t> code_point_offsets(std::string_view text);

/// Python's str.isspace(): what str.strip() strips.
bool is_space(char32_t code_point);

/// First occurrence at or after `from`, or npos. Linear in the worst case.
std::size_t find_bytes(std::string_view text, std::string_view wanted, std::size_t from = 0);

enum class Side { kLeft, kRight, kBoth };

/// Python's str.strip(), lstrip() and rstrip(); `characters` null means white space.
Text strip(const Text& text, const Text* characters, Side side);

/// Python's str.split(separator, max_splits); `separator` null means runs of white space.
/// max_splits < 0 means all.
std::vector<Text> split(const Text& text, const Text* separator, std::int64_t max_splits,
                        Budget& budget);

/// Python's str.replace(wanted, with, count); count < 0 means all.
Text replace(const Text& text, const Text& wanted, const Text& with, std::int64_t count,
             Budget& budget);

enum class Case { kUpper, kLower, kTitle, kCapitalize, kTitleFilter };

/// Python's upper(), lower(), title() and capitalize(), and Jinja's title filter. Only of ASCII
/// text: throws Failure where another letter's case would have to be known.
Text change_case(const Text& text, Case wanted);

}  // namespace paceline::runtime::chat
