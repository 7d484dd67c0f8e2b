#pragma once

#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace paceline::runtime {

/// For what is read: objects sorted by key, so a vocabulary of 128k entries is looked up fast.
using Json = nlohmann::json;

/// For what is written: keys stay in the order they were set in, as a reader expects.
using OrderedJson = nlohmann::ordered_json;

/// What untrusted JSON may ask for before it is refused.
struct JsonLimits {
  std::size_t max_bytes = std::size_t{64} << 20;
  int max_depth = 64;
};

/// Parses untrusted JSON (RFC 8259, UTF-8). Refuses duplicate keys, nesting deeper than
/// `limits.max_depth`, and text longer than `limits.max_bytes`.
/// `source` names the text in messages, e.g. "config.json" or "prompts.jsonl line 7".
/// Throws ConfigError.
Json parse_json(std::string_view text, std::string_view source, const JsonLimits& limits = {});

/// Reads a whole file; throws ConfigError naming the path if it cannot be read or exceeds
/// `max_bytes`.
std::string read_file(const std::filesystem::path& path,
                      std::size_t max_bytes = std::size_t{64} << 20);

/// read_file, then parse_json with the path as the source.
Json read_json(const std::filesystem::path& path, const JsonLimits& limits = {});

}  // namespace paceline::runtime
