#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "runtime/requests/request.h"

namespace paceline::runtime {

/// What a line leaves open, and what bounds it.
struct RequestRules {
  SamplingParams defaults = {};  ///< the command line's; a line's own values win
  /// Token ids of a prompt must be below.
  std::int64_t vocab_size = std::numeric_limits<std::int32_t>::max();
};

/// Longest accepted input line in bytes.
inline constexpr std::size_t kMaxLineBytes = std::size_t{64} << 20;

/// Reads one line of an input file. It is one JSON object, in one of two forms:
/// - a line of an OpenAI batch: `custom_id`, `method`, `url` and `body`, where the body holds
///   `messages` or `prompt` and the sampling parameters;
/// - all of these in one flat object, without `body`.
/// `prompt` is a string or a list of token ids. A message's `content` is a string, or a list of
/// `text` parts, which are joined by newlines. Fields that are not supported are refused by name
/// unless their value changes nothing (`"n": 1`, `"stream": false`, null).
/// Throws RequestError whose `field` names the offending field; `line` is its number, from 1.
Request parse_request(std::string_view text, std::int64_t line, const RequestRules& rules);

/// The id under which a line is answered: its `custom_id` if that can be read, else `line-N`.
/// Never throws over what the line holds.
std::string request_id(std::string_view text, std::int64_t line);

}  // namespace paceline::runtime
