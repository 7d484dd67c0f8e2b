#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "runtime/chat/builtins.h"

/// Jinja's filters, and transformers' tojson.
namespace paceline::runtime::chat {

namespace {

Value trim_filter(const Value& input, const Arguments& arguments, Budget& budget) {
  const auto bound = arguments.bind("trim", {"chars"});
  const Text text = to_text(input, budget);
  const bool given = bound[0] && !bound[0]->is_none();
  if (given && !bound[0]->is_string()) throw Failure("trim() needs a string");
  return Value::of(strip(text, given ? bound[0]->text() : nullptr, Side::kBoth));
}

template <Case wanted>
Value case_filter(const Value& input, const Arguments& arguments, Budget& budget) {
  arguments.bind("a filter of case", {});
  return Value::of(change_case(to_text(input, budget), wanted));
}

Value replace_filter(const Value& input, const Arguments& arguments, Budget& budget) {
  const auto bound = arguments.bind("replace", {"old", "new", "count"});
  if (!bound[0] || !bound[1]) throw Failure("replace() needs two strings");
  std::int64_t count = -1;
  if (bound[2] && !bound[2]->is_none() && !bound[2]->integer(count)) {
    throw Failure("replace() counts in integers");
  }
  return Value::of(replace(to_text(input, budget), to_text(*bound[0], budget),
                           to_text(*bound[1], budget), count, budget));
}

Value length_filter(const Value& input, const Arguments& arguments, Budget& budget) {
  arguments.bind("length", {});
  std::size_t length = 0;
  if (const Text* text = input.text()) {
    budget.scan(text->size());
    length = count_code_points(text->bytes());
  } else if (input.sequence() != nullptr || input.mapping() != nullptr || input.is_undefined()) {
    length = iterate(input, budget).size();
  } else if (const LoopState* loop = input.loop()) {
    length = loop->items->items.size();
  } else {
    throw Failure(fmt::format("{} has no length", input.type_name()));
  }
  return Value::of(static_cast<std::int64_t>(length));
}

template <bool last>
Value end_filter(const Value& input, const Arguments& arguments, Budget& budget) {
  arguments.bind(last ? "last" : "first", {});
  const Items items = iterate(input, budget);
  if (items.empty()) return Value();
  return items[last ? items.size() - 1 : 0];
}

Value list_filter(const Value& input, const Arguments& arguments, Budget& budget) {
  arguments.bind("list", {});
  return Value::list(iterate(input, budget).list()->items, budget);
}

Value string_filter(const Value& input, const Arguments& arguments, Budget& budget) {
  arguments.bind("string", {});
  return Value::of(to_text(input, budget));
}

Value items_filter(const Value& input, const Arguments& arguments, Budget& budget) {
  arguments.bind("items", {});
  if (input.is_undefined()) return Value::list({}, budget);
  if (input.mapping() == nullptr) throw Failure("items works on dictionaries only");
  return call_method(input, "items", {}, budget);
}

Value default_filter(const Value& input, const Arguments& arguments, Budget&) {
  const auto bound = arguments.bind("default", {"default_value", "boolean"});
  const bool any_false = bound[1] && bound[1]->truthy();
  if (!input.is_undefined() && !(any_false && !input.truthy())) return input;
  return bound[0] ? *bound[0] : Value::of(Text());
}

Value reverse_filter(const Value& input, const Arguments& arguments, Budget& budget) {
  arguments.bind("reverse", {});
  if (input.is_string()) {
    return get_slice(input, Value::none(), Value::none(), Value::of(std::int64_t{-1}), budget);
  }
  std::vector<Value> items = iterate(input, budget).list()->items;
  std::reverse(items.begin(), items.end());
  return Value::list(std::move(items), budget);
}

/// Python's int() or float() of a string, if it is one.
bool parse_number(const Value& input, double& real, std::int64_t& whole, bool& is_whole) {
  const Text stripped = strip(*input.text(), nullptr, Side::kBoth);
  std::string_view text = stripped.bytes();
  if (text.starts_with('+')) {
    text.remove_prefix(1);
    if (text.starts_with('-')) return false;
  }
  const char* end = text.data() + text.size();
  const auto as_whole = std::from_chars(text.data(), end, whole);
  is_whole = as_whole.ec == std::errc() && as_whole.ptr == end;
  if (is_whole) return true;
  const auto as_real = std::from_chars(text.data(), end, real);
  return as_real.ec == std::errc() && as_real.ptr == end;
}

Value int_filter(const Value& input, const Arguments& arguments, Budget& budget) {
  const auto bound = arguments.bind("int", {"default"});
  const Value fallback = bound[0] ? *bound[0] : Value::of(std::int64_t{0});
  budget.step();
  if (input.is_undefined()) fail_undefined(*input.undefined());
  std::int64_t whole = 0;
  if (input.integer(whole)) return Value::of(whole);
  double real = 0;
  bool is_whole = false;
  if (input.is_string() && !parse_number(input, real, whole, is_whole)) return fallback;
  if (is_whole) return Value::of(whole);
  if (!input.is_string() && !input.number(real)) return fallback;
  if (!(std::abs(real) < 9.2e18)) return fallback;
  return Value::of(static_cast<std::int64_t>(real));
}

Value float_filter(const Value& input, const Arguments& arguments, Budget& budget) {
  const auto bound = arguments.bind("float", {"default"});
  budget.step();
  if (input.is_undefined()) fail_undefined(*input.undefined());
  double real = 0;
  std::int64_t whole = 0;
  bool is_whole = false;
  if (input.number(real)) return Value::of(real);
  if (input.is_string() && parse_number(input, real, whole, is_whole)) {
    return Value::of(is_whole ? static_cast<double>(whole) : real);
  }
  return bound[0] ? *bound[0] : Value::of(0.0);
}

Value abs_filter(const Value& input, const Arguments& arguments, Budget&) {
  arguments.bind("abs", {});
  double real = 0;
  if (!input.number(real)) throw Failure("abs works on numbers only");
  std::int64_t whole = 0;
  if (input.is_bool() && input.integer(whole)) return Value::of(whole);
  return real < 0 ? negate(input) : input;
}

/// What map(attribute="a.b") and its like take from an item.
Value attribute_of(const Value& item, const Value& path, Budget& budget) {
  std::int64_t index = 0;
  if (path.integer(index)) return get_item(item, path, budget);
  if (!path.is_string()) throw Failure("an attribute is named by a string");
  const Text dot(".", true);
  Value value = item;
  for (const Text& part : split(*path.text(), &dot, -1, budget)) {
    const std::string& name = part.bytes();
    const bool digits = !name.empty() && name.find_first_not_of("0123456789") == std::string::npos;
    std::int64_t position = 0;
    if (digits) std::from_chars(name.data(), name.data() + name.size(), position);
    value = get_item(value, digits ? Value::of(position) : Value::of(part), budget);
  }
  return value;
}

/// The arguments behind the first `count` positional ones.
Arguments rest_of(const Arguments& arguments, std::size_t count) {
  Arguments rest = arguments;
  rest.positional.erase(rest.positional.begin(),
                        rest.positional.begin() + static_cast<std::ptrdiff_t>(count));
  return rest;
}

std::string name_argument(const Value& value) {
  if (!value.is_string()) throw Failure("a filter or test is named by a string");
  return value.text()->bytes();
}

Value map_filter(const Value& input, const Arguments& arguments, Budget& budget) {
  std::vector<Value> results;
  if (!input.truthy()) return Value::list({}, budget);  // None as well.
  if (arguments.positional.empty()) {
    const auto bound = arguments.bind("map", {"attribute", "default"});
    if (!bound[0]) throw Failure("map() needs a filter or an attribute");
    for (const Value& item : iterate(input, budget)) {
      Value value = attribute_of(item, *bound[0], budget);
      if (value.is_undefined() && bound[1]) value = *bound[1];
      results.push_back(std::move(value));
    }
    return Value::list(std::move(results), budget);
  }
  const std::string name = name_argument(arguments.positional[0]);
  const Filter* filter = find_filter(name);
  if (filter == nullptr) throw Failure(fmt::format("the filter \"{}\" is not supported", name));
  // map('map', 'map', ...) would recurse once per argument.
  if (name == "map") throw Failure("map('map') is not supported");
  const Arguments rest = rest_of(arguments, 1);
  for (const Value& item : iterate(input, budget)) {
    budget.step();
    results.push_back(filter->apply(item, rest, budget));
  }
  return Value::list(std::move(results), budget);
}

/// select, reject, selectattr and rejectattr: which items to keep by a test (else by truth).
template <bool by_attribute, bool keep>
Value select_filter(const Value& input, const Arguments& arguments, Budget& budget) {
  const std::size_t fixed = by_attribute ? 1 : 0;
  if (!input.truthy()) return Value::list({}, budget);  // None as well.
  if (arguments.positional.size() < fixed) throw Failure("selectattr() needs an attribute");
  const Test* test = nullptr;
  Arguments rest;
  if (arguments.positional.size() > fixed) {
    const std::string name = name_argument(arguments.positional[fixed]);
    test = find_test(name);
    if (test == nullptr) throw Failure(fmt::format("the test \"{}\" is not supported", name));
    rest = rest_of(arguments, fixed + 1);
  }
  std::vector<Value> kept;
  for (const Value& item : iterate(input, budget)) {
    budget.step();
    const Value tested = by_attribute ? attribute_of(item, arguments.positional[0], budget) : item;
    const bool holds = test == nullptr ? tested.truthy() : test->holds(tested, rest, budget);
    if (holds == keep) kept.push_back(item);
  }
  return Value::list(std::move(kept), budget);
}

Value join_filter(const Value& input, const Arguments& arguments, Budget& budget) {
  const auto bound = arguments.bind("join", {"d", "attribute"});
  const Text separator = bound[0] ? to_text(*bound[0], budget) : Text();
  Text joined;
  bool first = true;
  for (const Value& item : iterate(input, budget)) {
    const bool whole = !bound[1] || bound[1]->is_none();
    const Text text = to_text(whole ? item : attribute_of(item, *bound[1], budget), budget);
    budget.make(text.size() + separator.size());
    if (!first) joined.append(separator);
    joined.append(text);
    first = false;
  }
  return Value::of(std::move(joined));
}

Value unique_filter(const Value& input, const Arguments& arguments, Budget& budget) {
  const auto bound = arguments.bind("unique", {"case_sensitive"});
  const bool fold = !(bound[0] && bound[0]->truthy());
  const auto key_of = [&](const Value& item) {
    return fold && item.is_string() ? Value::of(change_case(*item.text(), Case::kLower)) : item;
  };
  std::vector<Value> kept;
  std::vector<Value> keys;
  for (const Value& item : iterate(input, budget)) {
    if (item.depth() > 0) throw Failure("unique works on strings and numbers only");
    Value key = key_of(item);
    if (std::any_of(keys.begin(), keys.end(),
                    [&](const Value& known) { return equals(known, key, budget); })) {
      continue;
    }
    kept.push_back(item);
    keys.push_back(std::move(key));
  }
  return Value::list(std::move(kept), budget);
}

Value tojson_filter(const Value& input, const Arguments& arguments, Budget& budget) {
  const auto bound =
      arguments.bind("tojson", {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ascii = bound[0] && bound[0]->truthy();
  if (bound[1] && !bound[1]->is_none()) {
    std::int64_t indent = 0;
    if (!bound[1]->integer(indent) || indent < 0 || indent > 64) {
      throw Failure("tojson() indents by 0 to 64 spaces");
    }
    style.indent = static_cast<int>(indent);
    style.item_separator.pop_back();  // ", " without its space: a line break follows.
  }
  if (bound[2] && !bound[2]->is_none()) {
    const Sequence* pair = bound[2]->sequence();
    if (pair == nullptr || pair->items.size() != 2 || !pair->items[0].is_string() ||
        !pair->items[1].is_string()) {
      throw Failure("tojson() needs two strings as separators");
    }
    style.item_separator = pair->items[0].text()->bytes();
    style.key_separator = pair->items[1].text()->bytes();
  }
  style.sort_keys = bound[3] && bound[3]->truthy();
  return Value::of(to_json(input, style, budget));
}

constexpr Filter kFilters[] = {
    {"abs", abs_filter},
    {"capitalize", case_filter<Case::kCapitalize>},
    {"count", length_filter},
    {"d", default_filter},
    {"default", default_filter},
    {"first", end_filter<false>},
    {"float", float_filter},
    {"int", int_filter},
    {"items", items_filter},
    {"join", join_filter},
    {"last", end_filter<true>},
    {"length", length_filter},
    {"list", list_filter},
    {"lower", case_filter<Case::kLower>},
    {"map", map_filter},
    {"reject", select_filter<false, false>},
    {"rejectattr", select_filter<true, false>},
    {"replace", replace_filter},
    {"reverse", reverse_filter},
    {"select", select_filter<false, true>},
    {"selectattr", select_filter<true, true>},
    {"string", string_filter},
    {"title", case_filter<Case::kTitleFilter>},
    {"tojson", tojson_filter},
    {"trim", trim_filter},
    {"unique", unique_filter},
    {"upper", case_filter<Case::kUpper>},
};

}  // namespace

const Filter* find_filter(std::string_view name) {
  const auto* found = std::find_if(std::begin(kFilters), std::end(kFilters),
                                   [&](const Filter& filter) { return filter.name == name; });
  return found == std::end(kFilters) ? nullptr : found;
}

}  // namespace paceline::runtime::chat
