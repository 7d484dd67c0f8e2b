#include "runtime/chat/lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "kernels/core/error.h"
#include "runtime/chat/text.h"

namespace paceline::runtime::chat {

void refuse_template(std::string_view where, int line, std::string_view what) {
  throw ConfigError("{}: chat template line {}: {}", where, line, what);
}

namespace {

bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string with_unix_newlines(std::string_view source) {
  std::string result;
  result.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      result += source[i];
    } else {
      result += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (!result.empty() && result.back() == '\n') result.pop_back();
  return result;
}

class Lexer {
 public:
  Lexer(std::string_view source, std::string_view where)
      : text_(with_unix_newlines(source)), source_(text_), where_(where) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) lex_data();
    add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(std::string_view what) { refuse_template(where_, line_, what); }

  bool at(std::string_view wanted) const { return source_.substr(at_, wanted.size()) == wanted; }
  char peek(std::size_t ahead = 0) const {
    return at_ + ahead < source_.size() ? source_[at_ + ahead] : '\0';
  }

  void advance(std::size_t count) {
    const std::string_view passed = source_.substr(at_, count);
    line_ += static_cast<int>(std::count(passed.begin(), passed.end(), '\n'));
    at_ += passed.size();
  }

  void skip_spaces() {
    std::size_t end = at_;
    while (end < source_.size() && is_space(code_point_at(source_, end))) {
      end += code_point_size(source_, end);
    }
    advance(end - at_);
  }

  void add(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  /// Text up to the next tag, and that tag.
  void lex_data() {
    std::size_t tag = at_;
    while (true) {
      tag = source_.find('{', tag);
      if (tag == source_.npos) {
        add_data(source_.size(), '\0', false);
        return;
      }
      const char kind = tag + 1 < source_.size() ? source_[tag + 1] : '\0';
      if (kind == '%' || kind == '{' || kind == '#') break;
      ++tag;
    }
    const char kind = source_[tag + 1];
    char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    if (sign != '-' && sign != '+') sign = '\0';
    add_data(tag, sign, kind != '{');
    const std::size_t tag_size = sign == '\0' ? 2 : 3;
    if (kind == '%' && lex_raw()) return;
    if (kind != '#') add(kind == '%' ? TokenKind::kBlockBegin : TokenKind::kVariableBegin, "");
    advance(tag_size);
    if (kind == '#') {
      lex_comment();
    } else {
      lex_tag(kind == '%');
    }
  }

  /// Adds the text from here to `end`, stripped as the tag that follows it asks.
  void add_data(std::size_t end, char sign, bool strips_line) {
    std::string_view data = source_.substr(at_, end - at_);
    const bool line_starts = at_ == 0 || source_[at_ - 1] == '\n';
    if (sign == '-') {
      data = data.substr(0, strip(Text(data, true), nullptr, Side::kRight).size());
    } else if (sign == '\0' && strips_line) {
      const std::size_t newline = data.rfind('\n');
      const std::size_t line_start = newline == data.npos ? 0 : newline + 1;
      if ((line_start > 0 || line_starts) &&
          strip(Text(data.substr(line_start), true), nullptr, Side::kBoth).empty()) {
        data = data.substr(0, line_start);
      }
    }
    if (!data.empty()) add(TokenKind::kData, std::string(data));
    advance(end - at_);
  }

  void lex_comment() {
    const std::size_t end = source_.find("#}", at_);
    if (end == source_.npos) fail("a comment {# is not closed by #}");
    const char sign = end > at_ ? source_[end - 1] : '\0';
    advance(end + 2 - at_);
    after_tag(sign);
  }

  /// After a tag's end: "-" strips what follows, "+" keeps it, else one newline goes.
  void after_tag(char sign) {
    if (sign == '-') {
      skip_spaces();
    } else if (sign != '+' && peek() == '\n') {
      advance(1);
    }
  }

  /// From `{%`, if a tag of this name alone is here: its size and the sign at its end.
  std::optional<std::pair<std::size_t, char>> bare_tag(std::size_t start, std::string_view name) {
    std::size_t end = start + 2;
    if (end < source_.size() && (source_[end] == '-' || source_[end] == '+')) ++end;
    const auto spaces = [&] {
      while (end < source_.size() && is_space(code_point_at(source_, end))) {
        end += code_point_size(source_, end);
      }
    };
    spaces();
    if (source_.substr(end, name.size()) != name) return std::nullopt;
    end += name.size();
    spaces();
    char sign = end < source_.size() ? source_[end] : '\0';
    if (sign == '-' || sign == '+') {
      ++end;
    } else {
      sign = '\0';
    }
    if (source_.substr(end, 2) != "%}") return std::nullopt;
    return std::pair(end + 2 - start, sign);
  }

  bool lex_raw() {
    const auto begin = bare_tag(at_, "raw");
    if (!begin) return false;
    advance(begin->first);
    if (begin->second == '-') skip_spaces();
    std::size_t end = at_;
    std::optional<std::pair<std::size_t, char>> tag;
    while ((end = source_.find("{%", end)) != source_.npos) {
      tag = bare_tag(end, "endraw");
      if (tag) break;
      ++end;
    }
    if (!tag) fail("{% raw %} is not closed by {% endraw %}");
    char sign = source_[end + 2];
    if (sign != '-' && sign != '+') sign = '\0';
    add_data(end, sign, true);
    advance(tag->first);
    after_tag(tag->second);
    return true;
  }

  /// The tokens of a {% block %} or {{ variable }}, and its end.
  void lex_tag(bool block) {
    const std::string_view close = block ? "%}" : "}}";
    std::string brackets;  // Those still open; "}}" ends nothing inside them.
    while (true) {
      skip_spaces();
      if (at_ >= source_.size()) fail(fmt::format("a tag is not closed by {}", close));
      if (brackets.empty()) {
        const char sign = at("-") || (block && at("+")) ? peek() : '\0';
        const std::size_t sign_size = sign == '\0' ? 0 : 1;
        if (source_.substr(at_ + sign_size, 2) == close) {
          add(block ? TokenKind::kBlockEnd : TokenKind::kVariableEnd, "");
          advance(sign_size + 2);
          if (block || sign == '-') after_tag(sign);
          return;
        }
      }
      lex_token(brackets);
    }
  }

  void lex_token(std::string& brackets) {
    const char c = peek();
    if (is_digit(c)) {
      lex_number();
    } else if (is_name_start(c)) {
      std::size_t size = 1;
      while (is_name_start(peek(size)) || is_digit(peek(size))) ++size;
      add(TokenKind::kName, std::string(source_.substr(at_, size)));
      advance(size);
    } else if (c == '\'' || c == '"') {
      lex_string(c);
    } else {
      lex_operator(brackets);
    }
  }

  void lex_operator(std::string& brackets) {
    static constexpr std::string_view kOperators[] = {"**", "//", "==", "!=", "<=", ">="};
    for (const std::string_view two : kOperators) {
      if (!at(two)) continue;
      add(TokenKind::kOperator, std::string(two));
      advance(2);
      return;
    }
    const char c = peek();
    if (std::string_view("+-/*%~[](){}<>=.:|,").find(c) == std::string_view::npos) {
      const std::size_t size = code_point_size(source_, at_);
      fail(fmt::format("unexpected character \"{}\"", source_.substr(at_, size)));
    }
    if (c == '(' || c == '[' || c == '{') brackets += c == '(' ? ')' : c == '[' ? ']' : '}';
    if (c == ')' || c == ']' || c == '}') {
      if (brackets.empty() || brackets.back() != c) fail(fmt::format("unexpected \"{}\"", c));
      brackets.pop_back();
    }
    add(TokenKind::kOperator, std::string(1, c));
    advance(1);
  }

  void lex_number() {
    std::string digits;
    std::size_t size = 0;
    const auto take_digits = [&] {
      while (is_digit(peek(size)) || (peek(size) == '_' && is_digit(peek(size + 1)))) {
        if (peek(size) != '_') digits += peek(size);
        ++size;
      }
    };
    TokenKind kind = TokenKind::kInteger;
    take_digits();
    const bool after_dot = at_ > 0 && source_[at_ - 1] == '.';
    if (!after_dot && peek(size) == '.' && is_digit(peek(size + 1))) {
      kind = TokenKind::kFloat;
      digits += '.';
      ++size;
      take_digits();
    }
    if (!after_dot && (peek(size) == 'e' || peek(size) == 'E')) {
      const std::size_t sign = peek(size + 1) == '+' || peek(size + 1) == '-' ? 1 : 0;
      if (is_digit(peek(size + 1 + sign))) {
        kind = TokenKind::kFloat;
        digits += source_.substr(at_ + size, 1 + sign);
        size += 1 + sign;
        take_digits();
      }
    }
    if (is_name_start(peek(size))) fail("a number is followed by a letter");
    add(kind, digits);
    advance(size);
  }

  void lex_string(char quote) {
    std::string value;
    const int first_line = line_;
    std::size_t size = 1;
    while (true) {
      if (at_ + size >= source_.size()) fail("a string is not closed");
      const char c = source_[at_ + size];
      if (c == quote) break;
      if (c == '\\') {
        size += lex_escape(at_ + size, value);
      } else {
        value += c;
        ++size;
      }
    }
    advance(size + 1);
    tokens_.push_back({TokenKind::kString, std::move(value), first_line});
  }

  /// Decodes one of Python's escapes at `start`; returns how many bytes it takes.
  std::size_t lex_escape(std::size_t start, std::string& value) {
    if (start + 1 >= source_.size()) fail("a string is not closed");
    const char c = source_[start + 1];
    constexpr std::string_view kLetters = "\\'\"abfnrtv";
    constexpr std::string_view kValues = "\\'\"\a\b\f\n\r\t\v";
    if (const std::size_t simple = kLetters.find(c); simple != kLetters.npos) {
      value += kValues[simple];
      return 2;
    }
    if (c == '\n') return 2;
    if (c == 'N') fail("the escape \\N{...} is not supported");
    std::size_t wanted = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    char32_t code = 0;
    std::size_t used = 2;
    if (wanted == 0) {
      if (c < '0' || c > '7') {  // Python keeps the backslash of what is no escape.
        value += '\\';
        return 1;
      }
      for (used = 1; used < 4 && start + used < source_.size(); ++used) {
        const char digit = source_[start + used];
        if (digit < '0' || digit > '7') break;
        code = code * 8 + static_cast<char32_t>(digit - '0');
      }
    }
    for (; wanted > 0; --wanted, ++used) {
      const char digit = start + used < source_.size() ? source_[start + used] : '\0';
      const char lower = digit >= 'A' && digit <= 'F' ? static_cast<char>(digit + 32) : digit;
      if (!is_digit(lower) && (lower < 'a' || lower > 'f')) fail("an escape is cut short");
      code = code * 16 + static_cast<char32_t>(is_digit(lower) ? lower - '0' : lower - 'a' + 10);
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) fail("an escape is no character");
    append_utf8(value, code);
    return used;
  }

  std::string text_;
  std::string_view source_;
  std::string_view where_;
  std::size_t at_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize_template(std::string_view source, std::string_view where) {
  return Lexer(source, where).run();
}

}  // namespace paceline::runtime::chat
