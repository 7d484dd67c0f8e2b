#include "runtime/files/json.h"

#include <fstream>
#include <unordered_set>
#include <vector>

#include "kernels/core/error.h"

namespace paceline::runtime {

Json parse_json(std::string_view text, std::string_view source, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    throw ConfigError("{}: {} bytes of JSON, at most {} are accepted", source, text.size(),
                      limits.max_bytes);
  }
  // The library's own parser keeps its state on the heap; depth is bounded for those who walk the
  // result recursively. Duplicate keys are refused because readers disagree on which one counts.
  std::vector<std::unordered_set<std::string>> open_objects;
  const auto callback = [&](int depth, Json::parse_event_t event, Json& parsed) {
    using Event = Json::parse_event_t;
    if (event == Event::object_start || event == Event::array_start) {
      if (depth >= limits.max_depth) {
        throw ConfigError("{}: JSON nested deeper than {} levels", source, limits.max_depth);
      }
    }
    if (event == Event::object_start) {
      open_objects.emplace_back();
    } else if (event == Event::object_end) {
      open_objects.pop_back();
    } else if (event == Event::key) {
      if (!open_objects.back().insert(parsed.get<std::string>()).second) {
        throw ConfigError("{}: the key \"{}\" occurs twice in one object", source,
                          parsed.get<std::string>());
      }
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), callback);
  } catch (const Json::parse_error& error) {
    throw ConfigError("{}: not valid JSON at byte {}: {}", source, error.byte, error.what());
  }
}

std::string read_file(const std::filesystem::path& path, std::size_t max_bytes) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw ConfigError("{}: cannot be opened for reading", path.string());
  std::error_code failure;
  const auto size = std::filesystem::file_size(path, failure);
  if (failure) throw ConfigError("{}: is not a regular file", path.string());
  if (size > max_bytes) {
    throw ConfigError("{}: {} bytes, at most {} are accepted", path.string(), size, max_bytes);
  }
  std::string text(size, '\0');
  file.read(text.data(), static_cast<std::streamsize>(size));
  if (static_cast<std::size_t>(file.gcount()) != size) {
    throw ConfigError("{}: could not be read to its end", path.string());
  }
  return text;
}

Json read_json(const std::filesystem::path& path, const JsonLimits& limits) {
  return parse_json(read_file(path, limits.max_bytes), path.string(), limits);
}

}  // namespace paceline::runtime
