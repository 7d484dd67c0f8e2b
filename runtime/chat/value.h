#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "runtime/chat/budget.h"
#include "runtime/chat/text.h"
#include "runtime/files/json.h"

/// Values of the chat template language, with Python's rules for them.
namespace paceline::runtime::chat {

class Value;
struct MacroDefinition;

/// A name, attribute or item that does not exist. Prints as nothing and is false; most other
/// uses fail, naming `name` if there is one (a string of the syntax tree).
struct Undefined {
  const std::string* name = nullptr;
};
struct None {};

enum class Builtin { kRaiseException, kStrftimeNow, kNamespace, kRange, kDict };

/// What can be called: one of our functions or a macro of the template.
struct Function {
  Builtin builtin = Builtin::kRaiseException;
  const MacroDefinition* macro = nullptr;  ///< Takes precedence if set.
};

/// A list or tuple. Immutable once made (so no value contains itself), `depth` levels deep.
struct Sequence {
  std::vector<Value> items;
  bool tuple = false;
  int depth = 1;
};

/// A dictionary in order of insertion; keys are unique.
struct Mapping {
  std::vector<std::pair<Value, Value>> entries;
  int depth = 1;
};

/// namespace(): the one mutable thing. Owned by the interpreter, so values only point to it.
struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;
};

/// `loop` inside a for: `index` is the current item's, from 0.
struct LoopState {
  std::shared_ptr<const Sequence> items;
  std::size_t index = 0;
};

class Value {
 public:
  using Storage = std::variant<Undefined, None, bool, std::int64_t, double, std::shared_ptr<Text>,
                               std::shared_ptr<const Sequence>, std::shared_ptr<const Mapping>,
                               Namespace*, std::shared_ptr<const LoopState>, Function>;

  Value() = default;
  /// Any of Storage's types.
  template <typename T>
  static Value holding(T held) {
    Value value;
    value.storage_.template emplace<T>(std::move(held));
    return value;
  }
  static Value of(Text text) { return holding(std::make_shared<Text>(std::move(text))); }
  static Value of(bool value) { return holding(value); }
  static Value of(std::int64_t value) { return holding(value); }
  static Value of(double value) { return holding(value); }
  static Value none() { return holding(None{}); }
  /// Throws Failure if the result would nest deeper than kMaxValueDepth.
  static Value list(std::vector<Value> items, Budget& budget, bool tuple = false);
  static Value mapping(std::vector<std::pair<Value, Value>> entries, Budget& budget);

  bool is_undefined() const { return std::holds_alternative<Undefined>(storage_); }
  bool is_none() const { return std::holds_alternative<None>(storage_); }
  bool is_string() const { return text() != nullptr; }
  bool is_bool() const { return std::holds_alternative<bool>(storage_); }

  // Null if the value is of another type.
  const Text* text() const;
  const Sequence* sequence() const;
  const Mapping* mapping() const;
  Namespace* name_space() const;
  const LoopState* loop() const;
  const Function* function() const;
  const Undefined* undefined() const { return std::get_if<Undefined>(&storage_); }
  const double* floating() const { return std::get_if<double>(&storage_); }

  /// An int or a bool (Python's bools are ints); false if it is neither.
  bool integer(std::int64_t& out) const;
  /// An int, bool or float.
  bool number(double& out) const;

  /// Python's bool(x).
  bool truthy() const;

  /// What messages call the type: "string", "list", ...
  std::string_view type_name() const;

  /// How many levels of lists and dictionaries it holds; 0 for anything else.
  int depth() const;

  /// Appends text to a string that nobody else holds, or to a copy of it.
  void append_text(const Text& text, Budget& budget);

  const Storage& storage() const { return storage_; }

 private:
  Storage storage_;
};

/// Python's x == y.
bool equals(const Value& left, const Value& right, Budget& budget);

/// Negative, 0 or positive as left is less than, equals or is greater than right; throws Failure
/// for types that have no order.
int order(const Value& left, const Value& right, Budget& budget);

/// Python's `item in container`.
bool contains(const Value& container, const Value& item, Budget& budget);

/// The entry of a key, or null.
const Value* find_key(const Mapping& mapping, std::string_view key, Budget& budget);
const Value* find_key(const Mapping& mapping, const Value& key, Budget& budget);

/// Python's str(x), as {{ x }} prints it; an undefined value is "". Strings keep their
/// provenance, everything else becomes untrusted text.
Text to_text(const Value& value, Budget& budget);

/// Python's repr of a float: 0.1, 1e+16, inf.
std::string float_text(double value);

/// The items of a list, held: `for (const Value& item : iterate(value, budget))` is safe although
/// the list may have been made for it.
class Items {
 public:
  explicit Items(const Value& list);
  auto begin() const { return list_->items.begin(); }
  auto end() const { return list_->items.end(); }
  std::size_t size() const { return list_->items.size(); }
  bool empty() const { return list_->items.empty(); }
  const Value& operator[](std::size_t i) const { return list_->items[i]; }
  const std::shared_ptr<const Sequence>& list() const { return list_; }

 private:
  std::shared_ptr<const Sequence> list_;
};

/// The items that `for` and list() go over: a list's items, a dictionary's keys, a string's
/// characters, nothing for an undefined value. Throws Failure for what cannot be iterated.
Items iterate(const Value& value, Budget& budget);

/// Everything in `json` becomes a value; its strings and keys are untrusted.
Value from_json(const Json& json, Budget& budget, int depth = 0);

struct JsonStyle {
  int indent = -1;  ///< Spaces per level; -1 is all on one line.
  bool ascii = false;
  bool sort_keys = false;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};

/// Python's json.dumps(x), always untrusted.
Text to_json(const Value& value, const JsonStyle& style, Budget& budget);

}  // namespace paceline::runtime::chat
