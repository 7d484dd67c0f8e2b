#include <fmt/format.h>

#include <algorithm>

#include "runtime/chat/builtins.h"

/// The methods of strings and dictionaries.
namespace paceline::runtime::chat {

namespace {

const Text& text_argument(std::string_view callee, const Value& value) {
  if (value.is_undefined()) fail_undefined(*value.undefined());
  if (!value.is_string()) {
    throw Failure(fmt::format("{}() needs a string, not {}", callee, value.type_name()));
  }
  return *value.text();
}

std::int64_t integer_argument(std::string_view callee, const std::optional<Value>& value,
                              std::int64_t fallback) {
  std::int64_t number = fallback;
  if (value && !value->integer(number)) {
    throw Failure(fmt::format("{}() needs an integer, not {}", callee, value->type_name()));
  }
  return number;
}

/// A separator or set of characters: null if left out or none.
const Text* optional_text(std::string_view callee, const std::optional<Value>& value) {
  if (!value || value->is_none()) return nullptr;
  return &text_argument(callee, *value);
}

using TextMethod = Value (*)(const Text& text, std::string_view name, const Arguments& arguments,
                             Budget& budget);

template <Side side>
Value strip_method(const Text& text, std::string_view name, const Arguments& arguments,
                   Budget& budget) {
  const auto bound = arguments.bind(name, {"chars"});
  budget.make(text.size());
  return Value::of(strip(text, optional_text(name, bound[0]), side));
}

template <Case wanted>
Value case_method(const Text& text, std::string_view name, const Arguments& arguments,
                  Budget& budget) {
  arguments.bind(name, {});
  budget.make(text.size());
  return Value::of(change_case(text, wanted));
}

template <bool end>
Value affix_method(const Text& text, std::string_view name, const Arguments& arguments,
                   Budget& budget) {
  const auto bound = arguments.bind(name, {"affix"});
  if (!bound[0]) throw Failure(fmt::format("{}() needs a string", name));
  std::vector<Value> affixes = {*bound[0]};
  if (const Sequence* list = bound[0]->sequence(); list != nullptr && list->tuple) {
    affixes = list->items;
  }
  for (const Value& affix : affixes) {
    const std::string& wanted = text_argument(name, affix).bytes();
    budget.scan(wanted.size());
    if (end ? text.bytes().ends_with(wanted) : text.bytes().starts_with(wanted)) {
      return Value::of(true);
    }
  }
  return Value::of(false);
}

Value split_method(const Text& text, std::string_view name, const Arguments& arguments,
                   Budget& budget) {
  const auto bound = arguments.bind(name, {"sep", "maxsplit"});
  std::vector<Value> parts;
  const std::int64_t most = integer_argument(name, bound[1], -1);
  for (Text& part : split(text, optional_text(name, bound[0]), most, budget)) {
    parts.push_back(Value::of(std::move(part)));
  }
  return Value::list(std::move(parts), budget);
}

Value replace_method(const Text& text, std::string_view name, const Arguments& arguments,
                     Budget& budget) {
  const auto bound = arguments.bind(name, {"old", "new", "count"});
  if (!bound[0] || !bound[1]) throw Failure("replace() needs two strings");
  return Value::of(replace(text, text_argument(name, *bound[0]), text_argument(name, *bound[1]),
                           integer_argument(name, bound[2], -1), budget));
}

Value join_method(const Text& text, std::string_view name, const Arguments& arguments,
                  Budget& budget) {
  const auto bound = arguments.bind(name, {"iterable"});
  if (!bound[0]) throw Failure("join() needs a list");
  Text joined;
  bool first = true;
  for (const Value& item : iterate(*bound[0], budget)) {
    budget.make(text.size() + text_argument(name, item).size());
    if (!first) joined.append(text);
    joined.append(*item.text());
    first = false;
  }
  return Value::of(std::move(joined));
}

Value find_method(const Text& text, std::string_view name, const Arguments& arguments,
                  Budget& budget) {
  const auto bound = arguments.bind(name, {"sub"});
  if (!bound[0]) throw Failure("find() needs a string");
  budget.scan(text.size());
  const std::size_t found = find_bytes(text.bytes(), text_argument(name, *bound[0]).bytes());
  if (found == std::string::npos) return Value::of(std::int64_t{-1});
  return Value::of(static_cast<std::int64_t>(
      count_code_points(std::string_view(text.bytes()).substr(0, found))));
}

constexpr std::pair<std::string_view, TextMethod> kTextMethods[] = {
    {"capitalize", case_method<Case::kCapitalize>},
    {"endswith", affix_method<true>},
    {"find", find_method},
    {"join", join_method},
    {"lower", case_method<Case::kLower>},
    {"lstrip", strip_method<Side::kLeft>},
    {"replace", replace_method},
    {"rstrip", strip_method<Side::kRight>},
    {"split", split_method},
    {"startswith", affix_method<false>},
    {"strip", strip_method<Side::kBoth>},
    {"title", case_method<Case::kTitle>},
    {"upper", case_method<Case::kUpper>},
};

constexpr std::string_view kMappingMethods[] = {"get", "items", "keys", "values"};

Value call_mapping_method(const Mapping& map, std::string_view name, const Arguments& arguments,
                          Budget& budget) {
  if (name == "get") {
    const auto bound = arguments.bind(name, {"key", "default"});
    if (!bound[0]) throw Failure("get() needs a key");
    if (const Value* value = find_key(map, *bound[0], budget)) return *value;
    return bound[1] ? *bound[1] : Value::none();
  }
  arguments.bind(name, {});
  std::vector<Value> items;
  for (const auto& [key, value] : map.entries) {
    if (name == "keys") items.push_back(key);
    if (name == "values") items.push_back(value);
    if (name == "items") items.push_back(Value::list({key, value}, budget, true));
  }
  return Value::list(std::move(items), budget);
}

}  // namespace

bool is_method(std::string_view name) {
  return std::any_of(std::begin(kTextMethods), std::end(kTextMethods),
                     [&](const auto& method) { return method.first == name; }) ||
         std::find(std::begin(kMappingMethods), std::end(kMappingMethods), name) !=
             std::end(kMappingMethods);
}

Value call_method(const Value& object, std::string_view name, const Arguments& arguments,
                  Budget& budget) {
  if (object.is_undefined()) fail_undefined(*object.undefined());
  if (const Text* text = object.text()) {
    for (const auto& [known, method] : kTextMethods) {
      if (known == name) return method(*text, name, arguments, budget);
    }
  }
  const Mapping* map = object.mapping();
  if (map != nullptr && std::find(std::begin(kMappingMethods), std::end(kMappingMethods), name) !=
                            std::end(kMappingMethods)) {
    return call_mapping_method(*map, name, arguments, budget);
  }
  throw Failure(fmt::format("a {} has no method .{}()", object.type_name(), name));
}

}  // namespace paceline::runtime::chat
