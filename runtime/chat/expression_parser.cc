#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "runtime/chat/builtins.h"
#include "runtime/chat/parser.h"

namespace paceline::runtime::chat {

ExpressionPtr ExpressionParser::make(ExpressionKind kind, int line) const {
  auto expression = std::make_unique<Expression>();
  expression->kind = kind;
  expression->line = line;
  return expression;
}

void ExpressionParser::adopt(Expression& parent, ExpressionPtr child) const {
  if (child != nullptr) {
    parent.depth = std::max(parent.depth, child->depth + 1);
    if (parent.depth > kMaxSyntaxDepth) tokens_.fail("an expression nests too deep");
  }
  parent.operands.push_back(std::move(child));
}

ExpressionPtr ExpressionParser::parse(bool conditional) {
  const Nesting nesting(depth_, tokens_);
  ExpressionPtr value = parse_or();
  while (conditional && tokens_.is_name("if")) {
    auto choice = make(ExpressionKind::kConditional, tokens_.take().line);
    adopt(*choice, std::move(value));
    adopt(*choice, parse_or());
    adopt(*choice, tokens_.skip_name("else") ? parse() : nullptr);
    value = std::move(choice);
  }
  return value;
}

ExpressionPtr ExpressionParser::parse_tuple(bool conditional) {
  const int line = tokens_.current().line;
  ExpressionPtr first = parse(conditional);
  if (!tokens_.is_operator(",")) return first;
  auto tuple = make(ExpressionKind::kTuple, line);
  adopt(*tuple, std::move(first));
  while (tokens_.skip_operator(",")) {
    if (tokens_.is(TokenKind::kBlockEnd) || tokens_.is(TokenKind::kVariableEnd) ||
        tokens_.is_operator(")")) {
      break;
    }
    adopt(*tuple, parse(conditional));
  }
  return tuple;
}

ExpressionPtr ExpressionParser::join_level(ExpressionKind kind, std::string_view word, Level next) {
  ExpressionPtr first = (this->*next)();
  if (!tokens_.is_name(word)) return first;
  auto joined = make(kind, tokens_.current().line);
  adopt(*joined, std::move(first));
  while (tokens_.skip_name(word)) adopt(*joined, (this->*next)());
  return joined;
}

ExpressionPtr ExpressionParser::parse_or() {
  return join_level(ExpressionKind::kOr, "or", &ExpressionParser::parse_and);
}

ExpressionPtr ExpressionParser::parse_and() {
  return join_level(ExpressionKind::kAnd, "and", &ExpressionParser::parse_not);
}

ExpressionPtr ExpressionParser::parse_not() {
  if (!tokens_.is_name("not")) return parse_compare();
  const Nesting nesting(depth_, tokens_);
  auto inverse = make(ExpressionKind::kNot, tokens_.take().line);
  adopt(*inverse, parse_not());
  return inverse;
}

bool ExpressionParser::take_comparison(Operator& out) {
  constexpr std::pair<std::string_view, Operator> kComparisons[] = {
      {"==", Operator::kEqual},     {"!=", Operator::kNotEqual}, {"<", Operator::kLess},
      {"<=", Operator::kLessEqual}, {">", Operator::kGreater},   {">=", Operator::kGreaterEqual}};
  for (const auto& [text, operation] : kComparisons) {
    if (!tokens_.skip_operator(text)) continue;
    out = operation;
    return true;
  }
  if (tokens_.skip_name("in")) {
    out = Operator::kIn;
    return true;
  }
  const Token& next = tokens_.ahead();
  if (tokens_.is_name("not") && next.kind == TokenKind::kName && next.text == "in") {
    tokens_.take();
    tokens_.take();
    out = Operator::kNotIn;
    return true;
  }
  return false;
}

ExpressionPtr ExpressionParser::parse_compare() {
  const int line = tokens_.current().line;
  ExpressionPtr first = parse_sum();
  ExpressionPtr chain;
  Operator operation{};
  while (take_comparison(operation)) {
    if (chain == nullptr) {
      chain = make(ExpressionKind::kCompare, line);
      adopt(*chain, std::move(first));
    }
    chain->operators.push_back(operation);
    adopt(*chain, parse_sum());
  }
  return chain != nullptr ? std::move(chain) : std::move(first);
}

ExpressionPtr ExpressionParser::parse_arithmetic(
    std::initializer_list<std::pair<std::string_view, Operator>> words, Level next) {
  const int line = tokens_.current().line;
  ExpressionPtr first = (this->*next)();
  ExpressionPtr chain;
  while (true) {
    const auto word = std::find_if(words.begin(), words.end(), [&](const auto& candidate) {
      return tokens_.is_operator(candidate.first);
    });
    if (word == words.end()) break;
    tokens_.take();
    if (chain == nullptr) {
      chain = make(ExpressionKind::kArithmetic, line);
      adopt(*chain, std::move(first));
    }
    chain->operators.push_back(word->second);
    adopt(*chain, (this->*next)());
  }
  return chain != nullptr ? std::move(chain) : std::move(first);
}

ExpressionPtr ExpressionParser::parse_sum() {
  return parse_arithmetic({{"+", Operator::kAdd}, {"-", Operator::kSubtract}},
                          &ExpressionParser::parse_concatenation);
}

ExpressionPtr ExpressionParser::parse_concatenation() {
  ExpressionPtr first = parse_product();
  if (!tokens_.is_operator("~")) return first;
  auto joined = make(ExpressionKind::kConcatenate, tokens_.current().line);
  adopt(*joined, std::move(first));
  while (tokens_.skip_operator("~")) adopt(*joined, parse_product());
  return joined;
}

ExpressionPtr ExpressionParser::parse_product() {
  return parse_arithmetic({{"*", Operator::kMultiply},
                           {"/", Operator::kDivide},
                           {"//", Operator::kFloorDivide},
                           {"%", Operator::kModulo}},
                          &ExpressionParser::parse_power);
}

ExpressionPtr ExpressionParser::parse_power() {
  return parse_arithmetic({{"**", Operator::kPower}}, &ExpressionParser::parse_unary);
}

ExpressionPtr ExpressionParser::parse_signed(bool with_filters) {
  const Nesting nesting(depth_, tokens_);
  ExpressionPtr value;
  if (tokens_.is_operator("-") || tokens_.is_operator("+")) {
    const bool negates = tokens_.is_operator("-");
    value = make(negates ? ExpressionKind::kNegate : ExpressionKind::kPlus, tokens_.take().line);
    adopt(*value, parse_signed(false));
  } else {
    value = parse_primary();
  }
  value = parse_postfix(std::move(value));
  return with_filters ? parse_filters(std::move(value)) : std::move(value);
}

ExpressionPtr ExpressionParser::parse_primary() {
  switch (tokens_.current().kind) {
    case TokenKind::kName:
      return parse_name();
    case TokenKind::kString:
      return parse_string();
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return parse_number();
    default:
      break;
  }
  if (tokens_.is_operator("(")) return parse_parentheses();
  if (tokens_.is_operator("[")) return parse_list();
  if (tokens_.is_operator("{")) return parse_dict();
  tokens_.fail(fmt::format("expected an expression, not {}", tokens_.describe()));
}

ExpressionPtr ExpressionParser::parse_name() {
  const int line = tokens_.current().line;
  const std::string& word = tokens_.current().text;
  auto literal = make(ExpressionKind::kLiteral, line);
  if (word == "true" || word == "True" || word == "false" || word == "False") {
    literal->literal = Value::of(word[0] == 't' || word[0] == 'T');
    tokens_.take();
    return literal;
  }
  if (word == "none" || word == "None") {
    literal->literal = Value::none();
    tokens_.take();
    return literal;
  }
  auto name = make(ExpressionKind::kName, line);
  name->name = tokens_.expect_identifier();
  name->name_id = names_.id_of(name->name);
  return name;
}

ExpressionPtr ExpressionParser::parse_string() {
  auto literal = make(ExpressionKind::kLiteral, tokens_.current().line);
  std::string text;
  while (tokens_.is(TokenKind::kString)) text += tokens_.take().text;
  literal->literal = Value::of(Text(text, true));
  return literal;
}

ExpressionPtr ExpressionParser::parse_number() {
  auto literal = make(ExpressionKind::kLiteral, tokens_.current().line);
  const Token token = tokens_.take();
  const char* end = token.text.data() + token.text.size();
  if (token.kind == TokenKind::kInteger) {
    std::int64_t value = 0;
    if (std::from_chars(token.text.data(), end, value).ec != std::errc()) {
      tokens_.fail(fmt::format("the integer {} exceeds 64 bits", token.text));
    }
    literal->literal = Value::of(value);
  } else {
    double value = 0;
    if (std::from_chars(token.text.data(), end, value).ec != std::errc()) {
      tokens_.fail(fmt::format("the number {} is out of range", token.text));
    }
    literal->literal = Value::of(value);
  }
  return literal;
}

ExpressionPtr ExpressionParser::parse_parentheses() {
  const int line = tokens_.take().line;
  if (tokens_.skip_operator(")")) return make(ExpressionKind::kTuple, line);
  ExpressionPtr inner = parse_tuple();
  tokens_.expect_operator(")");
  return inner;
}

ExpressionPtr ExpressionParser::parse_list() {
  auto list = make(ExpressionKind::kList, tokens_.take().line);
  while (!tokens_.is_operator("]")) {
    adopt(*list, parse());
    if (!tokens_.skip_operator(",")) break;
  }
  tokens_.expect_operator("]");
  return list;
}

ExpressionPtr ExpressionParser::parse_dict() {
  auto dict = make(ExpressionKind::kDict, tokens_.take().line);
  while (!tokens_.is_operator("}")) {
    adopt(*dict, parse());
    tokens_.expect_operator(":");
    adopt(*dict, parse());
    if (!tokens_.skip_operator(",")) break;
  }
  tokens_.expect_operator("}");
  return dict;
}

ExpressionPtr ExpressionParser::parse_postfix(ExpressionPtr object) {
  while (true) {
    if (tokens_.is_operator(".")) {
      object = parse_attribute(std::move(object));
    } else if (tokens_.is_operator("[")) {
      object = parse_subscript(std::move(object));
    } else if (tokens_.is_operator("(")) {
      object = parse_call(std::move(object));
    } else {
      return object;
    }
  }
}

ExpressionPtr ExpressionParser::parse_attribute(ExpressionPtr object) {
  const int line = tokens_.take().line;
  if (tokens_.is(TokenKind::kInteger)) {
    auto item = make(ExpressionKind::kItem, line);
    adopt(*item, std::move(object));
    adopt(*item, parse_number());
    return item;
  }
  if (!tokens_.is(TokenKind::kName)) {
    tokens_.fail(fmt::format("expected an attribute's name, not {}", tokens_.describe()));
  }
  const std::string name = tokens_.take().text;
  const bool called = tokens_.is_operator("(");
  auto attribute = make(called ? ExpressionKind::kMethod : ExpressionKind::kAttribute, line);
  attribute->name = name;
  adopt(*attribute, std::move(object));
  if (called) parse_arguments(*attribute);
  return attribute;
}

ExpressionPtr ExpressionParser::parse_subscript(ExpressionPtr object) {
  const int line = tokens_.take().line;
  ExpressionPtr bounds[3];
  int count = 0;
  bool slice = false;
  while (!tokens_.is_operator("]")) {
    if (tokens_.skip_operator(":")) {
      slice = true;
      if (++count > 2) tokens_.fail("a slice has at most two \":\"");
    } else {
      if (bounds[count] != nullptr) {
        tokens_.fail(fmt::format("expected \"]\", not {}", tokens_.describe()));
      }
      bounds[count] = parse();
    }
  }
  tokens_.expect_operator("]");
  if (!slice && bounds[0] == nullptr) tokens_.fail("expected an index or a slice in \"[]\"");
  auto item = make(slice ? ExpressionKind::kSlice : ExpressionKind::kItem, line);
  adopt(*item, std::move(object));
  for (int i = 0; i < (slice ? 3 : 1); ++i) adopt(*item, std::move(bounds[i]));
  return item;
}

ExpressionPtr ExpressionParser::parse_call(ExpressionPtr callee) {
  for (const std::string_view unsupported : {"cycler", "joiner", "lipsum"}) {
    if (callee->kind == ExpressionKind::kName && callee->name == unsupported) {
      tokens_.fail(fmt::format("the function {}() is not supported", unsupported));
    }
  }
  auto call = make(ExpressionKind::kCall, tokens_.current().line);
  adopt(*call, std::move(callee));
  parse_arguments(*call);
  return call;
}

ExpressionPtr ExpressionParser::parse_filters(ExpressionPtr input) {
  while (true) {
    if (tokens_.is_operator("|")) {
      input = parse_filter(std::move(input));
    } else if (tokens_.is_name("is")) {
      input = parse_test(std::move(input));
    } else if (tokens_.is_operator("(")) {
      input = parse_call(std::move(input));
    } else {
      return input;
    }
  }
}

ExpressionPtr ExpressionParser::parse_filter(ExpressionPtr input) {
  auto filter = make(ExpressionKind::kFilter, tokens_.take().line);
  filter->name = tokens_.expect_identifier();
  filter->filter = find_filter(filter->name);
  if (filter->filter == nullptr) {
    tokens_.fail(fmt::format("the filter \"{}\" is not supported", filter->name));
  }
  adopt(*filter, std::move(input));
  if (tokens_.is_operator("(")) parse_arguments(*filter);
  return filter;
}

ExpressionPtr ExpressionParser::parse_test(ExpressionPtr input) {
  auto test = make(ExpressionKind::kTest, tokens_.take().line);
  test->negated = tokens_.skip_name("not");
  if (!tokens_.is(TokenKind::kName)) {
    tokens_.fail(fmt::format("expected a test's name, not {}", tokens_.describe()));
  }
  test->name = tokens_.take().text;
  test->test = find_test(test->name);
  if (test->test == nullptr) {
    tokens_.fail(fmt::format("the test \"{}\" is not supported", test->name));
  }
  adopt(*test, std::move(input));
  if (tokens_.is_operator("(")) {
    parse_arguments(*test);
    return test;
  }
  if (tokens_.is_name("is")) tokens_.fail("tests cannot be chained with \"is\"");
  const bool operand = tokens_.is(TokenKind::kString) || tokens_.is(TokenKind::kInteger) ||
                       tokens_.is(TokenKind::kFloat) || tokens_.is_operator("[") ||
                       tokens_.is_operator("{") ||
                       (tokens_.is(TokenKind::kName) && !tokens_.is_name("else") &&
                        !tokens_.is_name("or") && !tokens_.is_name("and"));
  if (operand) {  // "is divisibleby 3": one argument without parentheses.
    const Nesting nesting(depth_, tokens_);
    ExpressionPtr argument = parse_postfix(parse_primary());
    test->depth = std::max(test->depth, argument->depth + 1);
    test->arguments.push_back({"", std::move(argument)});
  }
  return test;
}

void ExpressionParser::parse_arguments(Expression& call) {
  if (call.kind == ExpressionKind::kMethod && !is_method(call.name)) {
    tokens_.fail(fmt::format("the method .{}() is not supported", call.name));
  }
  tokens_.expect_operator("(");
  while (!tokens_.is_operator(")")) {
    if (tokens_.is_operator("*") || tokens_.is_operator("**")) {
      tokens_.fail("\"*\" and \"**\" in arguments are not supported");
    }
    Argument argument;
    const Token& next = tokens_.ahead();
    if (tokens_.is(TokenKind::kName) && next.kind == TokenKind::kOperator && next.text == "=") {
      argument.keyword = tokens_.take().text;
      tokens_.take();
    } else if (!call.arguments.empty() && !call.arguments.back().keyword.empty()) {
      tokens_.fail("a positional argument follows a named one");
    }
    argument.value = parse();
    call.depth = std::max(call.depth, argument.value->depth + 1);
    if (call.depth > kMaxSyntaxDepth) tokens_.fail("an expression nests too deep");
    call.arguments.push_back(std::move(argument));
    if (!tokens_.skip_operator(",")) break;
  }
  tokens_.expect_operator(")");
}

}  // namespace paceline::runtime::chat
