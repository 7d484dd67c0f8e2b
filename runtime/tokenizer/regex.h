#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace paceline::runtime {

/// A compiled PCRE2 pattern over UTF-8, JIT-compiled where the machine allows. Immutable: one may
/// be used by many threads at once.
class Regex {
 public:
  /// `pattern` in PCRE2's syntax. Throws ConfigError that starts with `where` if it does not
  /// compile or can match the empty string.
  Regex(const std::string& pattern, std::string_view where);

  /// Calls `found(begin, end)` for the non-overlapping matches in `text` (valid UTF-8), in order.
  /// Throws RequestError if a match takes too many steps, which needs an unusual pattern.
  void for_each_match(std::string_view text,
                      const std::function<void(std::size_t, std::size_t)>& found) const;

 private:
  std::shared_ptr<const void> code_;
  std::string source_;
};

}  // namespace paceline::runtime
