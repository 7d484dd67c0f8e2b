#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace paceline {

/// What is wrong was given by the user and is found before work starts: an option, a file, a key.
/// The message names the place and what was expected. Ends the job with exit code 2.
class ConfigError : public std::runtime_error {
 public:
  template <typename... Args>
  explicit ConfigError(fmt::format_string<Args...> format, Args&&... args)
      : std::runtime_error(fmt::format(format, std::forward<Args>(args)...)) {}
};

/// One request cannot be served; the others can. Becomes that request's `error` line.
/// `field` names the offending JSON field, or is empty.
class RequestError : public std::runtime_error {
 public:
  template <typename... Args>
  RequestError(std::string field_name, fmt::format_string<Args...> format, Args&&... args)
      : std::runtime_error(fmt::format(format, std::forward<Args>(args)...)),
        field(std::move(field_name)) {}
  std::string field;
};

/// An invariant of the engine or the cluster is broken (ranks disagree, a peer is gone).
/// Ends the whole job.
class FatalError : public std::runtime_error {
 public:
  template <typename... Args>
  explicit FatalError(fmt::format_string<Args...> format, Args&&... args)
      : std::runtime_error(fmt::format(format, std::forward<Args>(args)...)) {}
};

/// Throws FatalError unless an invariant holds. For the program's own mistakes, never for input.
template <typename... Args>
void check(bool holds, fmt::format_string<Args...> format, Args&&... args) {
  if (!holds) [[unlikely]]
    throw FatalError(format, std::forward<Args>(args)...);
}

}  // namespace paceline
