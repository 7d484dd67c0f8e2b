#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/chat/lexer.h"
#include "runtime/chat/syntax.h"

namespace paceline::runtime::chat {

/// Height of an expression's tree, and depth of the parser's recursion. Evaluation recurses once
/// per level, so this stays well below kMaxEvaluationDepth.
constexpr int kMaxSyntaxDepth = 150;

/// Goes over the tokens of a template; both parsers below share one.
class TokenStream {
 public:
  TokenStream(std::vector<Token> tokens, std::string_view where)
      : tokens_(std::move(tokens)), where_(where) {}

  const Token& current() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  Token take();

  bool is(TokenKind kind) const { return current().kind == kind; }
  bool is_operator(std::string_view text) const;
  bool is_name(std::string_view text) const;
  bool skip_operator(std::string_view text);
  bool skip_name(std::string_view text);
  void expect_operator(std::string_view text);
  void expect(TokenKind kind, std::string_view what);
  std::string expect_identifier();

  [[noreturn]] void fail(std::string_view what) const;
  [[noreturn]] void fail_at(int line, std::string_view what) const;
  /// What the current token is, for messages.
  std::string describe() const;

 private:
  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  std::string_view where_;
};

/// Numbers the names of a template.
class NameTable {
 public:
  int id_of(const std::string& name);
  std::vector<std::string> take() { return std::move(names_); }

 private:
  std::map<std::string, int> ids_;
  std::vector<std::string> names_;
};

/// Counts how deep the parser has recursed, for as long as it lives.
class Nesting {
 public:
  Nesting(int& depth, const TokenStream& tokens);
  ~Nesting() { --depth_; }
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;

 private:
  int& depth_;
};

/// Recursive descent over expressions, in Jinja's order of precedence.
class ExpressionParser {
 public:
  ExpressionParser(TokenStream& tokens, NameTable& names, int& depth)
      : tokens_(tokens), names_(names), depth_(depth) {}

  /// An expression; without `conditional`, "if" ends it (a for loop's filter).
  ExpressionPtr parse(bool conditional = true);
  /// As parse(), but "a, b" makes a tuple.
  ExpressionPtr parse_tuple(bool conditional = true);

 private:
  using Level = ExpressionPtr (ExpressionParser::*)();

  ExpressionPtr make(ExpressionKind kind, int line) const;
  void adopt(Expression& parent, ExpressionPtr child) const;
  ExpressionPtr join_level(ExpressionKind kind, std::string_view word, Level next);
  ExpressionPtr parse_or();
  ExpressionPtr parse_and();
  ExpressionPtr parse_not();
  ExpressionPtr parse_compare();
  bool take_comparison(Operator& out);
  ExpressionPtr parse_arithmetic(std::initializer_list<std::pair<std::string_view, Operator>> words,
                                 Level next);
  ExpressionPtr parse_sum();
  ExpressionPtr parse_concatenation();
  ExpressionPtr parse_product();
  ExpressionPtr parse_power();
  ExpressionPtr parse_unary() { return parse_signed(true); }
  ExpressionPtr parse_signed(bool with_filters);
  ExpressionPtr parse_primary();
  ExpressionPtr parse_name();
  ExpressionPtr parse_string();
  ExpressionPtr parse_number();
  ExpressionPtr parse_parentheses();
  ExpressionPtr parse_list();
  ExpressionPtr parse_dict();
  ExpressionPtr parse_postfix(ExpressionPtr object);
  ExpressionPtr parse_attribute(ExpressionPtr object);
  ExpressionPtr parse_subscript(ExpressionPtr object);
  ExpressionPtr parse_call(ExpressionPtr callee);
  ExpressionPtr parse_filters(ExpressionPtr input);
  ExpressionPtr parse_filter(ExpressionPtr input);
  ExpressionPtr parse_test(ExpressionPtr input);
  void parse_arguments(Expression& call);

  TokenStream& tokens_;
  NameTable& names_;
  int& depth_;
};

}  // namespace paceline::runtime::chat
