#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/files/json.h"

namespace paceline::runtime {

/// A value inside a JSON file together with the path to it, so that a refusal names the key.
/// Every member that asks for a kind of value throws ConfigError if the value is of another kind.
/// Refers to the document, which must outlive it.
class JsonField {
 public:
  /// `where` as in "model/tokenizer.json".
  JsonField(const Json& value, std::string where) : value_(&value), where_(std::move(where)) {}

  const Json& value() const { return *value_; }
  const std::string& where() const { return where_; }

  JsonField at(std::string_view key) const;
  /// Nothing if the key is absent or null.
  std::optional<JsonField> find(std::string_view key) const;
  std::vector<JsonField> items() const;

  const std::string& string() const;
  bool boolean() const;
  /// An integer from 0 to `most`.
  std::int64_t count(std::int64_t most) const;
  bool boolean_or(std::string_view key, bool absent) const;

  /// Refuses an object with a key outside `keys`, unless its value is null: what is not known may
  /// change the meaning.
  void allow_only(std::initializer_list<std::string_view> keys) const;
  /// Throws ConfigError: where, what stands there, and `expected`.
  [[noreturn]] void refuse(std::string_view expected) const;

 private:
  void require_object() const;

  const Json* value_;
  std::string where_;
};

}  // namespace paceline::runtime
