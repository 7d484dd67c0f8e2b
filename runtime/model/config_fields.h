#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "kernels/core/error.h"
#include "runtime/files/json.h"

namespace paceline::runtime {

/// One JSON object, read key by key; messages name the file and the key. A key that is null counts
/// as absent, as it does for the tools that write these files.
class ConfigFields {
 public:
  ConfigFields(const Json& object, std::string place) : object_(object), place_(std::move(place)) {
    if (!object.is_object()) throw ConfigError("{}: must be a JSON object", place_);
  }

  const Json* find(std::string_view key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }

  template <typename... Args>
  [[noreturn]] void refuse(std::string_view key, fmt::format_string<Args...> format,
                           Args&&... args) const {
    const Json* value = find(key);
    throw ConfigError("{}: \"{}\" is {}, {}", place_, key, value ? shown(*value) : "missing",
                      fmt::format(format, std::forward<Args>(args)...));
  }

  /// A whole number from 1 to `max`.
  std::int64_t size(std::string_view key, std::int64_t max) const {
    const Json* value = find(key);
    if (value == nullptr || !value->is_number_unsigned() || value->get<std::uint64_t>() < 1 ||
        value->get<std::uint64_t>() > static_cast<std::uint64_t>(max)) {
      refuse(key, "expected a whole number from 1 to {}", max);
    }
    return value->get<std::int64_t>();
  }

  std::optional<std::int64_t> optional_size(std::string_view key, std::int64_t max) const {
    if (find(key) == nullptr) return std::nullopt;
    return size(key, max);
  }

  /// A number above 0.
  double positive(std::string_view key) const {
    const Json* value = find(key);
    if (value == nullptr || !value->is_number() || !(value->get<double>() > 0.0)) {
      refuse(key, "expected a number above 0");
    }
    return value->get<double>();
  }

  double positive_or(std::string_view key, double otherwise) const {
    return find(key) ? positive(key) : otherwise;
  }

  bool boolean_or(std::string_view key, bool otherwise) const {
    const Json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) refuse(key, "expected true or false");
    return value->get<bool>();
  }

  std::string text(std::string_view key) const {
    const Json* value = find(key);
    if (value == nullptr || !value->is_string()) refuse(key, "expected a string");
    return value->get<std::string>();
  }

  /// Only `expected` is supported; a missing key means that.
  void must_be(std::string_view key, const Json& expected) const {
    const Json* value = find(key);
    if (value != nullptr && *value != expected) {
      refuse(key, "only {} is supported", expected.dump());
    }
  }

  void allow_only(std::initializer_list<std::string_view> keys) const {
    for (const auto& item : object_.items()) {
      if (std::find(keys.begin(), keys.end(), item.key()) == keys.end()) {
        refuse(item.key(), "this key is not supported");
      }
    }
  }

  ConfigFields inside(std::string_view key) const {
    return {*find(key), fmt::format("{}: \"{}\"", place_, key)};
  }

 private:
  /// A JSON value for a message: itself if it is short, else its type.
  static std::string shown(const Json& value) {
    constexpr std::size_t kMaxShown = 80;
    if (value.is_structured() && value.size() > kMaxShown) return value.type_name();
    const std::string text = value.dump();
    return text.size() <= kMaxShown ? text : value.type_name();
  }

  const Json& object_;
  std::string place_;
};

}  // namespace paceline::runtime
