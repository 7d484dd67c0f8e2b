#include "runtime/requests/output_manifest.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <set>
#include <vector>

#include "kernels/core/error.h"
#include "runtime/files/file_descriptor.h"
#include "runtime/files/json.h"

namespace paceline::runtime {
namespace {

constexpr int kFormatVersion = 1;

OrderedJson json_of(const OutputManifest& manifest) {
  OrderedJson json;
  json["format_version"] = kFormatVersion;
  json["input_sha256"] = manifest.input_sha256;
  json["model_sha256"] = manifest.model_sha256;
  json["job_seed"] = manifest.job_seed;
  json["numerics_id"] = manifest.numerics_id;
  json["options"] = OrderedJson::object();
  for (const auto& [name, value] : manifest.options) json["options"][name] = value;
  return json;
}

std::string text_of(const Json& json, const char* key, const std::filesystem::path& path) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_string()) {
    throw ConfigError("{}: \"{}\" must be a string", path.string(), key);
  }
  return found->get<std::string>();
}

/// Every value under the name by which a difference is reported.
std::map<std::string, std::string> named_values(const OutputManifest& manifest) {
  std::map<std::string, std::string> values;
  for (const auto& [name, value] : manifest.options) values["option " + name] = value;
  values["input_sha256"] = manifest.input_sha256;
  values["model_sha256"] = manifest.model_sha256;
  values["job_seed"] = std::to_string(manifest.job_seed);
  values["numerics_id"] = manifest.numerics_id;
  return values;
}

[[noreturn]] void refuse_write(const std::filesystem::path& path) {
  throw ConfigError("{}: cannot be written: {}", path.string(), std::strerror(errno));
}

void write_synced(const std::filesystem::path& path, std::string_view text) {
  const FileDescriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (!file.is_open()) refuse_write(path);
  while (!text.empty()) {
    const ssize_t written = ::write(file.get(), text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) refuse_write(path);
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  if (::fsync(file.get()) != 0) refuse_write(path);
}

}  // namespace

std::filesystem::path manifest_path(const std::filesystem::path& output) {
  return output.string() + ".manifest.json";
}

void write_manifest(const std::filesystem::path& path, const OutputManifest& manifest) {
  const std::filesystem::path temporary = path.string() + ".tmp";
  // Option values come from the command line and may hold any bytes.
  write_synced(temporary,
               json_of(manifest).dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n");
  if (std::rename(temporary.c_str(), path.c_str()) != 0) refuse_write(path);
  // The rename itself lives in the directory.
  const auto parent = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  const FileDescriptor directory(::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.is_open() || ::fsync(directory.get()) != 0) refuse_write(parent);
}

std::optional<OutputManifest> read_manifest(const std::filesystem::path& path) {
  std::error_code failure;
  if (!std::filesystem::exists(path, failure)) return std::nullopt;
  const Json json = read_json(path);
  if (!json.is_object() || json.value("format_version", Json()) != kFormatVersion) {
    throw ConfigError("{}: is not a manifest of format_version {}", path.string(), kFormatVersion);
  }
  OutputManifest manifest;
  manifest.input_sha256 = text_of(json, "input_sha256", path);
  manifest.model_sha256 = text_of(json, "model_sha256", path);
  manifest.numerics_id = text_of(json, "numerics_id", path);
  const auto seed = json.find("job_seed");
  if (seed == json.end() || !seed->is_number_unsigned()) {
    throw ConfigError("{}: \"job_seed\" must be a whole number", path.string());
  }
  manifest.job_seed = seed->get<std::uint64_t>();
  const auto options = json.find("options");
  if (options == json.end() || !options->is_object()) {
    throw ConfigError("{}: \"options\" must be an object", path.string());
  }
  for (const auto& item : options->items()) {
    manifest.options[item.key()] = text_of(*options, item.key().c_str(), path);
  }
  return manifest;
}

void check_same_manifest(const OutputManifest& saved, const OutputManifest& current,
                         const std::filesystem::path& path) {
  const auto before = named_values(saved);
  const auto now = named_values(current);
  std::set<std::string> names;
  for (const auto& [name, value] : before) names.insert(name);
  for (const auto& [name, value] : now) names.insert(name);
  const auto shown = [](const std::map<std::string, std::string>& values, const std::string& name) {
    const auto found = values.find(name);
    return found == values.end() ? std::string("absent") : "\"" + found->second + "\"";
  };
  std::vector<std::string> differences;
  for (const std::string& name : names) {
    const std::string old_value = shown(before, name);
    const std::string new_value = shown(now, name);
    if (old_value == new_value) continue;
    differences.push_back(fmt::format("{} was {}, now {}", name, old_value, new_value));
  }
  if (differences.empty()) return;
  throw ConfigError("{}: the output cannot be resumed, it was made by a different job: {}",
                    path.string(), fmt::join(differences, "; "));
}

}  // namespace paceline::runtime
