#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "runtime/chat/builtins.h"
#include "runtime/chat/syntax.h"

/// Jinja's tests: `value is name` and `value is name(argument)`.
namespace paceline::runtime::chat {

namespace {

template <bool (*holds)(const Value& value)>
bool plain(const Value& input, const Arguments& arguments, Budget&) {
  arguments.bind("a test", {});
  return holds(input);
}

bool is_defined(const Value& value) { return !value.is_undefined(); }
bool is_undefined(const Value& value) { return value.is_undefined(); }
bool is_none(const Value& value) { return value.is_none(); }
bool is_string(const Value& value) { return value.is_string(); }
bool is_mapping(const Value& value) { return value.mapping() != nullptr; }
bool is_boolean(const Value& value) { return value.is_bool(); }
bool is_true(const Value& value) { return value.is_bool() && value.truthy(); }
bool is_false(const Value& value) { return value.is_bool() && !value.truthy(); }
bool is_float(const Value& value) { return value.floating() != nullptr; }
bool is_callable(const Value& value) { return value.function() != nullptr; }
bool is_integer(const Value& value) {
  std::int64_t whole = 0;
  return !value.is_bool() && value.integer(whole);
}
bool is_number(const Value& value) {
  double real = 0;
  return value.number(real);
}
/// Jinja counts undefined values as empty sequences here.
bool is_sequence(const Value& value) {
  return value.is_string() || value.sequence() != nullptr || value.mapping() != nullptr ||
         value.is_undefined();
}
bool is_iterable(const Value& value) { return is_sequence(value) || value.loop() != nullptr; }
/// Whether the text has letters, all of this case.
template <Case own, Case other>
bool is_in_case(const Value& input, const Arguments& arguments, Budget& budget) {
  arguments.bind("a test", {});
  const Text text = to_text(input, budget);
  return change_case(text, own).bytes() == text.bytes() &&
         change_case(text, other).bytes() != text.bytes();
}

const Value only(const Arguments& arguments) {
  const auto bound = arguments.bind("a test", {"other"});
  if (!bound[0]) throw Failure("the test needs an argument");
  return *bound[0];
}

template <std::int64_t divisor, std::int64_t rest>
bool remainder_is(const Value& input, const Arguments& arguments, Budget& budget) {
  arguments.bind("a test", {});
  const Value left = calculate(input, Operator::kModulo, Value::of(divisor), budget);
  return equals(left, Value::of(rest), budget);
}

bool divisible_by(const Value& input, const Arguments& arguments, Budget& budget) {
  return equals(calculate(input, Operator::kModulo, only(arguments), budget),
                Value::of(std::int64_t{0}), budget);
}

template <bool wanted>
bool equal_to(const Value& input, const Arguments& arguments, Budget& budget) {
  return equals(input, only(arguments), budget) == wanted;
}

template <bool less, bool equal>
bool ordered(const Value& input, const Arguments& arguments, Budget& budget) {
  const int result = order(input, only(arguments), budget);
  return result == 0 ? equal : (result < 0) == less;
}

bool is_in(const Value& input, const Arguments& arguments, Budget& budget) {
  return contains(only(arguments), input, budget);
}

constexpr Test kTests[] = {
    {"boolean", plain<is_boolean>},
    {"callable", plain<is_callable>},
    {"defined", plain<is_defined>},
    {"divisibleby", divisible_by},
    {"eq", equal_to<true>},
    {"equalto", equal_to<true>},
    {"even", remainder_is<2, 0>},
    {"false", plain<is_false>},
    {"float", plain<is_float>},
    {"ge", ordered<false, true>},
    {"greaterthan", ordered<false, false>},
    {"gt", ordered<false, false>},
    {"in", is_in},
    {"integer", plain<is_integer>},
    {"iterable", plain<is_iterable>},
    {"le", ordered<true, true>},
    {"lessthan", ordered<true, false>},
    {"lower", is_in_case<Case::kLower, Case::kUpper>},
    {"lt", ordered<true, false>},
    {"mapping", plain<is_mapping>},
    {"ne", equal_to<false>},
    {"none", plain<is_none>},
    {"number", plain<is_number>},
    {"odd", remainder_is<2, 1>},
    {"sequence", plain<is_sequence>},
    {"string", plain<is_string>},
    {"true", plain<is_true>},
    {"undefined", plain<is_undefined>},
    {"upper", is_in_case<Case::kUpper, Case::kLower>},
};

}  // namespace

const Test* find_test(std::string_view name) {
  // Operators name tests too, but only in selectattr("a", "==", b).
  constexpr std::pair<std::string_view, std::string_view> kSymbols[] = {
      {"==", "eq"}, {"!=", "ne"}, {"<", "lt"}, {"<=", "le"}, {">", "gt"}, {">=", "ge"}};
  for (const auto& [symbol, word] : kSymbols) {
    if (name == symbol) name = word;
  }
  const auto* found = std::find_if(std::begin(kTests), std::end(kTests),
                                   [&](const Test& test) { return test.name == name; });
  return found == std::end(kTests) ? nullptr : found;
}

}  // namespace paceline::runtime::chat
