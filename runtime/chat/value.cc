#include "runtime/chat/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace paceline::runtime::chat {

namespace {

template <typename T>
const T* pointee(const Value::Storage& storage) {
  const auto* held = std::get_if<std::shared_ptr<const T>>(&storage);
  return held == nullptr ? nullptr : held->get();
}

int checked_depth(int inner) {
  if (inner >= kMaxValueDepth) throw Failure("lists or dictionaries nest too deep");
  return inner + 1;
}

}  // namespace

Value Value::list(std::vector<Value> items, Budget& budget, bool tuple) {
  budget.make(sizeof(Sequence) + items.size() * sizeof(Value));
  int inner = 0;
  for (const Value& item : items) inner = std::max(inner, item.depth());
  return holding(
      std::make_shared<const Sequence>(Sequence{std::move(items), tuple, checked_depth(inner)}));
}

Value Value::mapping(std::vector<std::pair<Value, Value>> entries, Budget& budget) {
  budget.make(sizeof(Mapping) + entries.size() * 2 * sizeof(Value));
  int inner = 0;
  for (const auto& [key, item] : entries) inner = std::max({inner, key.depth(), item.depth()});
  return holding(
      std::make_shared<const Mapping>(Mapping{std::move(entries), checked_depth(inner)}));
}

const Text* Value::text() const {
  const auto* held = std::get_if<std::shared_ptr<Text>>(&storage_);
  return held == nullptr ? nullptr : held->get();
}
const Sequence* Value::sequence() const { return pointee<Sequence>(storage_); }
const Mapping* Value::mapping() const { return pointee<Mapping>(storage_); }
const LoopState* Value::loop() const { return pointee<LoopState>(storage_); }
const Function* Value::function() const { return std::get_if<Function>(&storage_); }
Namespace* Value::name_space() const {
  const auto* held = std::get_if<Namespace*>(&storage_);
  return held == nullptr ? nullptr : *held;
}

bool Value::integer(std::int64_t& out) const {
  if (const auto* whole = std::get_if<std::int64_t>(&storage_)) {
    out = *whole;
    return true;
  }
  if (const auto* truth = std::get_if<bool>(&storage_)) {
    out = *truth ? 1 : 0;
    return true;
  }
  return false;
}

bool Value::number(double& out) const {
  std::int64_t whole = 0;
  if (integer(whole)) {
    out = static_cast<double>(whole);
    return true;
  }
  if (const double* real = floating()) {
    out = *real;
    return true;
  }
  return false;
}

bool Value::truthy() const {
  if (is_undefined() || is_none()) return false;
  double real = 0;
  if (number(real)) return real != 0;
  if (const Text* string = text()) return !string->empty();
  if (const Sequence* list = sequence()) return !list->items.empty();
  if (const Mapping* map = mapping()) return !map->entries.empty();
  return true;
}

std::string_view Value::type_name() const {
  constexpr std::string_view kNames[] = {"undefined value", "None",   "bool",    "int",
                                         "float",           "string", "list",    "dict",
                                         "namespace",       "loop",   "function"};
  const Sequence* list = sequence();
  if (list != nullptr && list->tuple) return "tuple";
  return kNames[storage_.index()];
}

int Value::depth() const {
  if (const Sequence* list = sequence()) return list->depth;
  if (const Mapping* map = mapping()) return map->depth;
  if (const LoopState* state = loop()) return state->items->depth;
  return 0;
}

void Value::append_text(const Text& more, Budget& budget) {
  auto& held = std::get<std::shared_ptr<Text>>(storage_);
  budget.make(more.size());
  if (held.use_count() == 1) {
    held->append(more);
    return;
  }
  budget.make(held->size());
  Text joined = *held;
  joined.append(more);
  held = std::make_shared<Text>(std::move(joined));
}

bool equals(const Value& left, const Value& right, Budget& budget) {
  budget.step();
  std::int64_t a = 0;
  std::int64_t b = 0;
  if (left.integer(a) && right.integer(b)) return a == b;
  double x = 0;
  double y = 0;
  if (left.number(x) && right.number(y)) return x == y;
  if (left.storage().index() != right.storage().index()) return false;
  if (left.is_undefined() || left.is_none()) return true;
  if (const Text* text = left.text()) {
    if (text->size() != right.text()->size()) return false;
    budget.scan(text->size());
    return text->bytes() == right.text()->bytes();
  }
  if (const Sequence* list = left.sequence()) {
    const Sequence* other = right.sequence();
    return list->tuple == other->tuple &&
           std::equal(
               list->items.begin(), list->items.end(), other->items.begin(), other->items.end(),
               [&](const Value& item, const Value& its) { return equals(item, its, budget); });
  }
  if (const Mapping* map = left.mapping()) {
    const Mapping* other = right.mapping();
    if (map->entries.size() != other->entries.size()) return false;
    for (const auto& [key, item] : map->entries) {
      const Value* its = find_key(*other, key, budget);
      if (its == nullptr || !equals(item, *its, budget)) return false;
    }
    return true;
  }
  if (left.name_space() != nullptr) return left.name_space() == right.name_space();
  if (left.loop() != nullptr) return left.loop() == right.loop();
  return left.function()->macro == right.function()->macro &&
         left.function()->builtin == right.function()->builtin;
}

int order(const Value& left, const Value& right, Budget& budget) {
  budget.step();
  std::int64_t a = 0;
  std::int64_t b = 0;
  if (left.integer(a) && right.integer(b)) return a < b ? -1 : a > b;
  double x = 0;
  double y = 0;
  if (left.number(x) && right.number(y)) return x < y ? -1 : x > y;
  if (left.is_string() && right.is_string()) {
    budget.scan(std::min(left.text()->size(), right.text()->size()));
    // UTF-8 sorts as its code points do.
    return left.text()->bytes().compare(right.text()->bytes());
  }
  const Sequence* list = left.sequence();
  const Sequence* other = right.sequence();
  if (list != nullptr && other != nullptr && list->tuple == other->tuple) {
    const std::size_t shared = std::min(list->items.size(), other->items.size());
    for (std::size_t i = 0; i < shared; ++i) {
      if (equals(list->items[i], other->items[i], budget)) continue;
      return order(list->items[i], other->items[i], budget);
    }
    return list->items.size() < other->items.size() ? -1 : list->items.size() > other->items.size();
  }
  throw Failure(fmt::format("{} and {} cannot be ordered", left.type_name(), right.type_name()));
}

bool contains(const Value& container, const Value& item, Budget& budget) {
  if (container.is_undefined()) return false;
  if (const Text* text = container.text()) {
    if (!item.is_string()) {
      throw Failure(fmt::format("'in' a string needs a string, not {}", item.type_name()));
    }
    budget.scan(text->size());
    return find_bytes(text->bytes(), item.text()->bytes()) != std::string_view::npos;
  }
  if (const Sequence* list = container.sequence()) {
    return std::any_of(list->items.begin(), list->items.end(),
                       [&](const Value& held) { return equals(held, item, budget); });
  }
  if (const Mapping* map = container.mapping()) return find_key(*map, item, budget) != nullptr;
  throw Failure(fmt::format("'in' cannot look into {}", container.type_name()));
}

const Value* find_key(const Mapping& mapping, std::string_view key, Budget& budget) {
  budget.step(1 + mapping.entries.size() / 8);
  for (const auto& [name, item] : mapping.entries) {
    const Text* text = name.text();
    if (text != nullptr && text->bytes() == key) return &item;
  }
  return nullptr;
}

const Value* find_key(const Mapping& mapping, const Value& key, Budget& budget) {
  if (const Text* text = key.text()) {
    budget.scan(text->size());
    return find_key(mapping, text->bytes(), budget);
  }
  if (key.depth() > 0 && (key.sequence() == nullptr || !key.sequence()->tuple)) {
    throw Failure(fmt::format("{} cannot be a key", key.type_name()));
  }
  for (const auto& [name, item] : mapping.entries) {
    if (equals(name, key, budget)) return &item;
  }
  return nullptr;
}

Items::Items(const Value& list)
    : list_(std::get<std::shared_ptr<const Sequence>>(list.storage())) {}

Items iterate(const Value& value, Budget& budget) {
  if (value.sequence() != nullptr) return Items(value);
  std::vector<Value> items;
  if (const Mapping* map = value.mapping()) {
    for (const auto& [key, item] : map->entries) items.push_back(key);
  } else if (const Text* text = value.text()) {
    const std::string_view bytes = text->bytes();
    for (std::size_t at = 0; at < bytes.size();) {
      const std::size_t size = code_point_size(bytes, at);
      budget.make(sizeof(Value) + sizeof(Text) + 32);
      items.push_back(Value::of(text->slice(at, at + size)));
      at += size;
    }
  } else if (!value.is_undefined()) {
    throw Failure(fmt::format("{} cannot be iterated over", value.type_name()));
  }
  return Items(Value::list(std::move(items), budget));
}

Value from_json(const Json& json, Budget& budget, int depth) {
  if (depth >= kMaxValueDepth) throw Failure("the conversation nests too deep");
  switch (json.type()) {
    case Json::value_t::null:
      return Value::none();
    case Json::value_t::boolean:
      return Value::of(json.get<bool>());
    case Json::value_t::number_integer:
      return Value::of(json.get<std::int64_t>());
    case Json::value_t::number_unsigned:
      if (json.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX)) {
        throw Failure("an integer of the conversation exceeds 64 bits");
      }
      return Value::of(json.get<std::int64_t>());
    case Json::value_t::number_float:
      return Value::of(json.get<double>());
    case Json::value_t::string: {
      const auto& bytes = json.get_ref<const std::string&>();
      budget.make(bytes.size());
      return Value::of(Text(bytes, false));
    }
    case Json::value_t::array: {
      std::vector<Value> items;
      for (const Json& item : json) items.push_back(from_json(item, budget, depth + 1));
      return Value::list(std::move(items), budget);
    }
    case Json::value_t::object: {
      std::vector<std::pair<Value, Value>> entries;
      for (const auto& [key, item] : json.items()) {
        budget.make(key.size());
        entries.emplace_back(Value::of(Text(key, false)), from_json(item, budget, depth + 1));
      }
      return Value::mapping(std::move(entries), budget);
    }
    case Json::value_t::binary:
    case Json::value_t::discarded:
      break;
  }
  throw Failure("the conversation holds something that is not JSON");
}

}  // namespace paceline::runtime::chat
