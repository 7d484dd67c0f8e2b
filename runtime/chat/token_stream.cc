#include <fmt/format.h>

#include <algorithm>

#include "runtime/chat/parser.h"

namespace paceline::runtime::chat {

Token TokenStream::take() {
  Token token = tokens_[at_];
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool TokenStream::is_operator(std::string_view text) const {
  return is(TokenKind::kOperator) && current().text == text;
}
bool TokenStream::is_name(std::string_view text) const {
  return is(TokenKind::kName) && current().text == text;
}
bool TokenStream::skip_operator(std::string_view text) {
  if (!is_operator(text)) return false;
  take();
  return true;
}
bool TokenStream::skip_name(std::string_view text) {
  if (!is_name(text)) return false;
  take();
  return true;
}
void TokenStream::expect_operator(std::string_view text) {
  if (!skip_operator(text)) fail(fmt::format("expected \"{}\", not {}", text, describe()));
}
void TokenStream::expect(TokenKind kind, std::string_view what) {
  if (!is(kind)) fail(fmt::format("expected {}, not {}", what, describe()));
  take();
}
std::string TokenStream::expect_identifier() {
  constexpr std::string_view kReserved[] = {"true", "false", "none", "True", "False",
                                            "None", "and",   "or",   "not",  "in",
                                            "is",   "if",    "else", "elif"};
  if (!is(TokenKind::kName) || std::find(std::begin(kReserved), std::end(kReserved),
                                         current().text) != std::end(kReserved)) {
    fail(fmt::format("expected a name, not {}", describe()));
  }
  return take().text;
}
void TokenStream::fail(std::string_view what) const { fail_at(current().line, what); }
void TokenStream::fail_at(int line, std::string_view what) const {
  refuse_template(where_, line, what);
}
std::string TokenStream::describe() const {
  switch (current().kind) {
    case TokenKind::kName:
    case TokenKind::kInteger:
    case TokenKind::kFloat:
    case TokenKind::kOperator:
      return fmt::format("\"{}\"", current().text);
    case TokenKind::kString:
      return "a string";
    case TokenKind::kEnd:
      return "the end of the template";
    default:
      return "the end of the tag";
  }
}

int NameTable::id_of(const std::string& name) {
  const auto [entry, added] = ids_.emplace(name, static_cast<int>(names_.size()));
  if (added) names_.push_back(name);
  return entry->second;
}

Nesting::Nesting(int& depth, const TokenStream& tokens) : depth_(depth) {
  if (depth_ >= kMaxSyntaxDepth) tokens.fail("nested too deep");
  ++depth_;
}

}  // namespace paceline::runtime::chat
