#include <fmt/format.h>

#include <algorithm>

#include "runtime/chat/builtins.h"

/// object.name, object[key], object[start:stop:step] and the methods of strings and dictionaries.
namespace paceline::runtime::chat {

void fail_undefined(const Undefined& value) {
  if (value.name == nullptr) throw Failure("a value is undefined");
  throw Failure(fmt::format("'{}' is undefined", *value.name));
}

namespace {

Value loop_attribute(const LoopState& loop, const std::string& name) {
  const auto index = static_cast<std::int64_t>(loop.index);
  const auto length = static_cast<std::int64_t>(loop.items->items.size());
  if (name == "index") return Value::of(index + 1);
  if (name == "index0") return Value::of(index);
  if (name == "revindex") return Value::of(length - index);
  if (name == "revindex0") return Value::of(length - index - 1);
  if (name == "first") return Value::of(index == 0);
  if (name == "last") return Value::of(index + 1 == length);
  if (name == "length") return Value::of(length);
  // These count recursive loops only.
  if (name == "depth") return Value::of(std::int64_t{1});
  if (name == "depth0") return Value::of(std::int64_t{0});
  if (name == "previtem" && index > 0) return loop.items->items[loop.index - 1];
  if (name == "nextitem" && index + 1 < length) return loop.items->items[loop.index + 1];
  return Value::holding(Undefined{&name});
}

/// Python's rules for a bound of a slice over `length` items.
std::int64_t slice_bound(const Value& bound, std::int64_t fallback, std::int64_t length,
                         std::int64_t lowest, std::int64_t highest) {
  std::int64_t at = 0;
  if (!bound.integer(at)) return fallback;
  if (at < 0) at = at < -length ? lowest : std::max(lowest, at + length);
  return std::min(at, highest);
}

std::vector<std::int64_t> slice_indices(std::int64_t length, const Value& start, const Value& stop,
                                        const Value& step_value, Budget& budget) {
  std::int64_t step = 1;
  step_value.integer(step);
  if (step == 0) throw Failure("the step of a slice cannot be zero");
  const std::int64_t lowest = step > 0 ? 0 : -1;
  const std::int64_t highest = step > 0 ? length : length - 1;
  const std::int64_t first =
      slice_bound(start, step > 0 ? lowest : highest, length, lowest, highest);
  const std::int64_t last = slice_bound(stop, step > 0 ? highest : lowest, length, lowest, highest);
  // A larger step would leave after one item anyway; this keeps i + step from overflowing.
  step = std::clamp(step, -length - 1, length + 1);
  std::vector<std::int64_t> indices;
  for (std::int64_t i = first; step > 0 ? i < last : i > last; i += step) {
    budget.make(sizeof(std::int64_t));
    indices.push_back(i);
  }
  return indices;
}

}  // namespace

Value get_attribute(const Value& object, const std::string& name, Budget& budget) {
  if (object.is_undefined()) fail_undefined(*object.undefined());
  if (const LoopState* loop = object.loop()) return loop_attribute(*loop, name);
  if (const Namespace* space = object.name_space()) {
    for (const auto& [key, value] : space->attributes) {
      if (key == name) return value;
    }
  }
  if (const Mapping* map = object.mapping()) {
    // Jinja finds Python's methods before the dictionary's own keys.
    if (is_method(name) &&
        (name == "items" || name == "keys" || name == "values" || name == "get")) {
      throw Failure(
          fmt::format("the method .{} is not called; write ['{}'] for the key", name, name));
    }
    if (const Value* value = find_key(*map, name, budget)) return *value;
  }
  return Value::holding(Undefined{&name});
}

Value get_item(const Value& object, const Value& key, Budget& budget) {
  if (object.is_undefined()) fail_undefined(*object.undefined());
  if (const Mapping* map = object.mapping()) {
    const Value* value = find_key(*map, key, budget);
    return value == nullptr ? Value() : *value;
  }
  std::int64_t index = 0;
  if (const Sequence* list = object.sequence(); list != nullptr && key.integer(index)) {
    const auto size = static_cast<std::int64_t>(list->items.size());
    if (index < 0) index += size;
    if (index < 0 || index >= size) return Value();
    return list->items[static_cast<std::size_t>(index)];
  }
  if (const Text* text = object.text(); text != nullptr && key.integer(index)) {
    budget.scan(text->size());
    const std::vector<std::size_t> offsets = code_point_offsets(text->bytes());
    const auto size = static_cast<std::int64_t>(offsets.size()) - 1;
    if (index < 0) index += size;
    if (index < 0 || index >= size) return Value();
    const auto at = static_cast<std::size_t>(index);
    return Value::of(text->slice(offsets[at], offsets[at + 1]));
  }
  const Text* name = key.text();
  if (name != nullptr && (object.name_space() != nullptr || object.loop() != nullptr)) {
    const Value value = get_attribute(object, name->bytes(), budget);
    return value.is_undefined() ? Value() : value;  // Its name is a temporary's.
  }
  return Value();
}

Value get_slice(const Value& object, const Value& start, const Value& stop, const Value& step,
                Budget& budget) {
  if (object.is_undefined()) fail_undefined(*object.undefined());
  for (const Value* bound : {&start, &stop, &step}) {
    std::int64_t whole = 0;
    if (!bound->is_none() && !bound->integer(whole)) {
      throw Failure("the bounds of a slice must be integers");
    }
  }
  if (const Sequence* list = object.sequence()) {
    std::vector<Value> items;
    const auto size = static_cast<std::int64_t>(list->items.size());
    for (const std::int64_t i : slice_indices(size, start, stop, step, budget)) {
      items.push_back(list->items[static_cast<std::size_t>(i)]);
    }
    return Value::list(std::move(items), budget, list->tuple);
  }
  const Text* text = object.text();
  if (text == nullptr) throw Failure(fmt::format("{} cannot be sliced", object.type_name()));
  const std::vector<std::size_t> offsets = code_point_offsets(text->bytes());
  budget.make(offsets.size() * sizeof(std::size_t));
  const auto size = static_cast<std::int64_t>(offsets.size()) - 1;
  Text result;
  for (const std::int64_t i : slice_indices(size, start, stop, step, budget)) {
    const auto at = static_cast<std::size_t>(i);
    result.append(text->slice(offsets[at], offsets[at + 1]));
  }
  return Value::of(std::move(result));
}

std::vector<std::optional<Value>> Arguments::bind(
    std::string_view callee, std::initializer_list<std::string_view> parameters) const {
  std::vector<std::optional<Value>> bound(parameters.size());
  if (positional.size() > parameters.size()) {
    throw Failure(fmt::format("{}() takes at most {} arguments", callee, parameters.size()));
  }
  std::copy(positional.begin(), positional.end(), bound.begin());
  for (const auto& [keyword, value] : named) {
    const auto parameter = std::find(parameters.begin(), parameters.end(), keyword);
    if (parameter == parameters.end()) {
      throw Failure(fmt::format("{}() has no argument \"{}\"", callee, keyword));
    }
    auto& slot = bound[static_cast<std::size_t>(parameter - parameters.begin())];
    if (slot) throw Failure(fmt::format("{}() gets \"{}\" twice", callee, keyword));
    slot = value;
  }
  return bound;
}

}  // namespace paceline::runtime::chat
