#include "runtime/tokenizer/json_field.h"

#include <algorithm>

#include "kernels/core/error.h"

namespace paceline::runtime {
namespace {

/// A short rendering for messages: containers may be megabytes long.
std::string describe(const Json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return fmt::format("a list of {}", value.size());
  std::string text = value.dump(-1, ' ', true);
  constexpr std::size_t kShown = 80;
  if (text.size() > kShown) text = text.substr(0, kShown) + "...";
  return text;
}

}  // namespace

void JsonField::refuse(std::string_view expected) const {
  throw ConfigError("{}: found {}, expected {}", where_, describe(*value_), expected);
}

void JsonField::require_object() const {
  if (!value_->is_object()) refuse("an object");
}

JsonField JsonField::at(std::string_view key) const {
  require_object();
  const auto found = value_->find(key);
  if (found == value_->end()) throw ConfigError("{}: the key \"{}\" is missing", where_, key);
  return JsonField(*found, fmt::format("{}: {}", where_, key));
}

std::optional<JsonField> JsonField::find(std::string_view key) const {
  require_object();
  const auto found = value_->find(key);
  if (found == value_->end() || found->is_null()) return std::nullopt;
  return JsonField(*found, fmt::format("{}: {}", where_, key));
}

std::vector<JsonField> JsonField::items() const {
  if (!value_->is_array()) refuse("a list");
  std::vector<JsonField> fields;
  fields.reserve(value_->size());
  for (std::size_t i = 0; i < value_->size(); ++i) {
    fields.emplace_back((*value_)[i], fmt::format("{}[{}]", where_, i));
  }
  return fields;
}

const std::string& JsonField::string() const {
  if (!value_->is_string()) refuse("a string");
  return value_->get_ref<const std::string&>();
}

bool JsonField::boolean() const {
  if (!value_->is_boolean()) refuse("true or false");
  return value_->get<bool>();
}

std::int64_t JsonField::count(std::int64_t most) const {
  const bool fits = value_->is_number_unsigned()
                        ? value_->get<std::uint64_t>() <= static_cast<std::uint64_t>(most)
                        : value_->is_number_integer() && value_->get<std::int64_t>() >= 0 &&
                              value_->get<std::int64_t>() <= most;
  if (!fits) refuse(fmt::format("an integer from 0 to {}", most));
  return value_->get<std::int64_t>();
}

bool JsonField::boolean_or(std::string_view key, bool absent) const {
  const auto field = find(key);
  return field ? field->boolean() : absent;
}

void JsonField::allow_only(std::initializer_list<std::string_view> keys) const {
  require_object();
  for (const auto& [key, value] : value_->items()) {
    if (value.is_null() || std::find(keys.begin(), keys.end(), key) != keys.end()) continue;
    throw ConfigError("{}: the key \"{}\" ({}) is not supported", where_, key, describe(value));
  }
}

}  // namespace paceline::runtime
