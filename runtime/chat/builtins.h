#pragma once

#include <initializer_list>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/chat/value.h"

/// The filters, tests and methods that chat templates use.
namespace paceline::runtime::chat {

/// The arguments of a call, evaluated.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string_view, Value>> named;

  /// Matches them to parameters; what is not given is empty. Throws Failure naming `callee`
  /// when there are too many, one is unknown or one comes twice.
  std::vector<std::optional<Value>> bind(std::string_view callee,
                                         std::initializer_list<std::string_view> parameters) const;
};

struct Filter {
  std::string_view name;
  Value (*apply)(const Value& input, const Arguments& arguments, Budget& budget);
};

struct Test {
  std::string_view name;
  bool (*holds)(const Value& input, const Arguments& arguments, Budget& budget);
};

/// Null if there is none of that name.
const Filter* find_filter(std::string_view name);
const Test* find_test(std::string_view name);

/// Whether `name` is a method of strings or dictionaries that call_method knows.
bool is_method(std::string_view name);

/// object.name(arguments) for strings and dictionaries.
Value call_method(const Value& object, std::string_view name, const Arguments& arguments,
                  Budget& budget);

/// object.name; undefined (pointing to `name`) if there is none.
Value get_attribute(const Value& object, const std::string& name, Budget& budget);

/// object[key]; undefined if there is none.
Value get_item(const Value& object, const Value& key, Budget& budget);

/// object[start:stop:step]; bounds that are none are left out.
Value get_slice(const Value& object, const Value& start, const Value& stop, const Value& step,
                Budget& budget);

/// Python's arithmetic on numbers, strings and lists is in arithmetic.cc.
enum class Operator : std::uint8_t;
Value calculate(const Value& left, Operator operation, const Value& right, Budget& budget);
Value negate(const Value& value);

/// Fails with a message that names an undefined value.
[[noreturn]] void fail_undefined(const Undefined& value);

}  // namespace paceline::runtime::chat
