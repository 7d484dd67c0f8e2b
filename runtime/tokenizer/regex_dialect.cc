#include "runtime/tokenizer/regex_dialect.h"

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "kernels/core/error.h"
#include "runtime/tokenizer/utf8.h"

namespace paceline::runtime {
namespace {

constexpr std::size_t kLongestPattern = 16384;
constexpr int kLargestRepeat = 1000;
constexpr std::size_t kDeepestGroup = 32;

// For use inside a class.
constexpr std::string_view kWhiteSpace =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

// Assigned in Unicode 15.0, 15.1 and 16.0 (UnicodeData.txt), for a PCRE2 with Unicode 14.
constexpr std::string_view kRecentLetters =
    R"(\x{1c89}\x{1c8a}\x{a7cb}-\x{a7cd}\x{a7da}-\x{a7dc}\x{105c0}-\x{105f3}\x{10d4a}-\x{10d65})"
    R"(\x{10d6f}-\x{10d85}\x{10ec2}-\x{10ec4}\x{1123f}\x{11240}\x{11380}-\x{11389}\x{1138b})"
    R"(\x{1138e}\x{11390}-\x{113b5}\x{113b7}\x{113d1}\x{113d3}\x{11bc0}-\x{11be0}\x{11f02})"
    R"(\x{11f04}-\x{11f10}\x{11f12}-\x{11f33}\x{1342f}\x{13441}-\x{13446}\x{13460}-\x{143fa})"
    R"(\x{16100}-\x{1611d}\x{16d40}-\x{16d6c}\x{18cff}\x{1b132}\x{1b155}\x{1df25}-\x{1df2a})"
    R"(\x{1e030}-\x{1e06d}\x{1e4d0}-\x{1e4eb}\x{1e5d0}-\x{1e5ed}\x{1e5f0}\x{2b739})"
    R"(\x{2ebf0}-\x{2ee5d}\x{31350}-\x{323af})";
constexpr std::string_view kRecentNumbers =
    R"(\x{10d40}-\x{10d49}\x{116d0}-\x{116e3}\x{11bf0}-\x{11bf9}\x{11f50}-\x{11f59})"
    R"(\x{16130}-\x{16139}\x{16d70}-\x{16d79}\x{1ccf0}-\x{1ccf9}\x{1d2c0}-\x{1d2d3})"
    R"(\x{1e4f0}-\x{1e4f9}\x{1e5f1}-\x{1e5fa})";

constexpr std::array<std::string_view, 36> kCategories = {
    "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",  "Nd",
    "Nl", "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S",  "Sm",
    "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp", "C",  "Cc", "Cf", "Co", "Cn"};

class Translator {
 public:
  Translator(std::string_view pattern, std::string_view where) : pattern_(pattern), where_(where) {}

  std::string run() {
    if (pattern_.empty()) refuse("an empty pattern");
    if (pattern_.size() > kLongestPattern) refuse("a pattern this long");
    while (at_ < pattern_.size()) step();
    if (!groups_.empty()) refuse("a group without its end");
    return std::move(output_);
  }

 private:
  enum class Group { kPlain, kCaseless, kLook };

  [[noreturn]] void refuse(std::string_view what) const {
    throw ConfigError("{}: the pattern {} at byte {}: {} is not supported", where_, pattern_, at_,
                      what);
  }

  bool next_is(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }
  bool caseless() const { return !groups_.empty() && groups_.back() == Group::kCaseless; }

  void step() {
    const char c = pattern_[at_];
    if (c == '(') return open_group();
    if (c == ')') return close_group();
    if (c == '|') {
      output_ += '|';
      ++at_;
      return;
    }
    if (caseless()) return caseless_literal();
    if (c == '^' || c == '$') refuse("an anchor");
    if (c == '*' || c == '+' || c == '?' || c == '{' || c == '}' || c == ']') {
      refuse("this character without a backslash before it");
    }
    if (c == '[') {
      read_class();
    } else if (c == '.') {
      output_ += "[^\\n]";
      ++at_;
    } else if (c == '\\') {
      read_escape(false);
    } else {
      read_literal();
    }
    read_quantifier();
  }

  void open_group() {
    struct Opening {
      std::string_view text;
      Group group;
      std::string_view output;
    };
    constexpr std::array<Opening, 4> kOpenings = {{{"(?:", Group::kPlain, "(?:"},
                                                   {"(?i:", Group::kCaseless, "(?i:"},
                                                   {"(?=", Group::kLook, "(?="},
                                                   {"(?!", Group::kLook, "(?!"}}};
    if (caseless()) refuse("a group inside (?i:");
    if (groups_.size() == kDeepestGroup) refuse("a group nested this deep");
    for (const Opening& opening : kOpenings) {
      if (!next_is(opening.text)) continue;
      groups_.push_back(opening.group);
      output_ += opening.output;
      at_ += opening.text.size();
      return;
    }
    if (next_is("(?")) refuse("this kind of group");
    groups_.push_back(Group::kPlain);
    output_ += "(?:";
    ++at_;
  }

  void close_group() {
    if (groups_.empty()) refuse("the end of a group without its beginning");
    const Group group = groups_.back();
    groups_.pop_back();
    output_ += ')';
    ++at_;
    const bool optional = next_is("?") && !next_is("??") && !next_is("?+");
    if (optional && group != Group::kLook) {
      output_ += '?';
      ++at_;
    }
    refuse_quantifier();
  }

  void refuse_quantifier() const {
    if (next_is("*") || next_is("+") || next_is("?") || next_is("{")) refuse("this repetition");
  }

  /// Oniguruma folds "ss" or "st" in a pattern also to one ligature; PCRE2 does not.
  void caseless_literal() {
    constexpr std::array<std::string_view, 5> kLigatures = {"ss", "st", "ff", "fi", "fl"};
    const auto lower = [&](std::size_t i) -> char {
      if (i >= pattern_.size()) return 0;
      const char c = pattern_[i];
      return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    };
    const char c = lower(at_);
    if (!((c >= 'a' && c <= 'z') || c == '\'' || c == ' ')) {
      refuse("anything but ASCII letters, spaces and apostrophes inside (?i:");
    }
    const std::array<char, 2> pair = {c, lower(at_ + 1)};
    for (const std::string_view ligature : kLigatures) {
      if (ligature == std::string_view(pair.data(), 2)) refuse("a ligature's letters inside (?i:");
    }
    output_ += pattern_[at_++];
    refuse_quantifier();
  }

  /// One character as itself.
  void read_literal() {
    const Utf8Step step = decode_utf8(pattern_.substr(at_));
    if (!step.valid) refuse("broken UTF-8");
    put_code_point(step.code_point);
    at_ += step.length;
  }

  void put_code_point(char32_t code_point) {
    output_ += fmt::format("\\x{{{:x}}}", static_cast<std::uint32_t>(code_point));
  }

  /// A backslash and what it escapes. Returns the character if it stands for exactly one.
  std::optional<char32_t> read_escape(bool in_class) {
    ++at_;
    if (at_ == pattern_.size()) refuse("a backslash at the end");
    const char c = pattern_[at_];
    constexpr std::string_view kControls = "tnvfr";  // U+0009 to U+000D, in this order
    const std::size_t control = kControls.find(c);
    if (control != std::string_view::npos || (c > ' ' && c < 0x7F && !is_word(c))) {
      const char32_t code_point =
          control != std::string_view::npos ? 9 + static_cast<char32_t>(control) : c;
      put_code_point(code_point);
      ++at_;
      return code_point;
    }
    if (c == 's') {
      output_ += in_class ? std::string(kWhiteSpace) : fmt::format("[{}]", kWhiteSpace);
      ++at_;
    } else if (c == 'S' && !in_class) {
      output_ += fmt::format("[^{}]", kWhiteSpace);
      ++at_;
    } else if (c == 'p' || c == 'P') {
      read_property(in_class);
    } else {
      refuse("this escape");
    }
    return std::nullopt;
  }

  static bool is_word(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  }

  void read_property(bool in_class) {
    const bool negated = pattern_[at_] == 'P';
    const std::size_t end = pattern_.find('}', at_);
    if (at_ + 1 >= pattern_.size() || pattern_[at_ + 1] != '{' || end == std::string_view::npos) {
      refuse("a property without braces");
    }
    const std::string_view name = pattern_.substr(at_ + 2, end - at_ - 2);
    if (std::find(kCategories.begin(), kCategories.end(), name) == kCategories.end()) {
      refuse("a property that is not a general category");
    }
    const std::string_view recent = name == "L"   ? kRecentLetters
                                    : name == "N" ? kRecentNumbers
                                                  : std::string_view();
    if (negated && in_class) refuse("a negated property inside a class");
    if (in_class) {
      output_ += fmt::format("\\p{{{}}}{}", name, recent);
    } else {
      output_ += fmt::format("[{}\\p{{{}}}{}]", negated ? "^" : "", name, recent);
    }
    at_ = end + 1;
  }

  void read_class() {
    output_ += '[';
    ++at_;
    if (next_is("^")) {
      output_ += '^';
      ++at_;
    }
    if (next_is("]")) refuse("an empty class");
    while (!next_is("]")) {
      const auto first = read_class_member();
      if (!next_is("-")) continue;
      if (at_ + 1 < pattern_.size() && pattern_[at_ + 1] == ']') {
        put_code_point('-');  // a hyphen at the end is itself
        ++at_;
        continue;
      }
      if (!first) refuse("a range that starts with a set");
      output_ += '-';
      ++at_;
      const auto last = read_class_member();
      if (!last || *last < *first) refuse("this range");
    }
    output_ += ']';
    ++at_;
  }

  std::optional<char32_t> read_class_member() {
    if (at_ >= pattern_.size()) refuse("a class without its end");
    if (next_is("[") || next_is("&&")) refuse("a class inside a class");
    if (next_is("-")) refuse("a hyphen here without a backslash before it");
    if (next_is("\\")) return read_escape(true);
    const char32_t code_point = decode_utf8(pattern_.substr(at_)).code_point;
    read_literal();
    return code_point;
  }

  void read_quantifier() {
    if (next_is("*") || next_is("+") || next_is("?")) {
      output_ += pattern_[at_++];
      if (next_is("?") || next_is("+")) output_ += pattern_[at_++];
    } else if (next_is("{")) {
      const std::size_t end = pattern_.find('}', at_);
      if (end == std::string_view::npos) refuse("an open brace");
      const std::string_view inside = pattern_.substr(at_ + 1, end - at_ - 1);
      const std::size_t comma = inside.find(',');
      const int least = read_repeat(inside.substr(0, comma));
      const bool bounded = comma != std::string_view::npos && comma + 1 < inside.size();
      if (bounded && read_repeat(inside.substr(comma + 1)) < least) refuse("these bounds");
      output_ += pattern_.substr(at_, end + 1 - at_);
      at_ = end + 1;
    }
    refuse_quantifier();
  }

  int read_repeat(std::string_view digits) const {
    int repeat = 0;
    if (digits.empty() || digits.size() > 4) refuse("this repetition");
    for (const char digit : digits) {
      if (digit < '0' || digit > '9') refuse("this repetition");
      repeat = repeat * 10 + (digit - '0');
    }
    if (repeat > kLargestRepeat) refuse("a repetition this large");
    return repeat;
  }

  std::string_view pattern_;
  std::string_view where_;
  std::size_t at_ = 0;
  std::vector<Group> groups_;
  std::string output_;
};

}  // namespace

std::string translate_oniguruma(std::string_view pattern, std::string_view where) {
  return Translator(pattern, where).run();
}

}  // namespace paceline::runtime
