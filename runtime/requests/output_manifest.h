#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

namespace paceline::runtime {

/// What an output file's answers depend on. It stands beside the output, `<output>.manifest.json`,
/// from before its first line, so that a resumed job cannot mix answers of two kinds.
struct OutputManifest {
  std::string input_sha256;  ///< of the input file
  std::string model_sha256;  ///< model_fingerprint()
  std::uint64_t job_seed = 0;
  std::string numerics_id;
  /// The options that answers depend on, by name: defaults of sampling, limits. Not the number of
  /// ranks or threads, on which they do not.
  std::map<std::string, std::string> options = {};

  bool operator==(const OutputManifest&) const = default;
};

/// Where the manifest of an output stands.
std::filesystem::path manifest_path(const std::filesystem::path& output);

/// Writes the manifest so that after any interruption the old file is there, or the new one, whole:
/// under another name, synchronized, then renamed. Throws ConfigError if it cannot be written.
void write_manifest(const std::filesystem::path& path, const OutputManifest& manifest);

/// Nothing if there is no such file; throws ConfigError if it is not a manifest of this version.
std::optional<OutputManifest> read_manifest(const std::filesystem::path& path);

/// Throws ConfigError naming every difference with both values.
void check_same_manifest(const OutputManifest& saved, const OutputManifest& current,
                         const std::filesystem::path& path);

}  // namespace paceline::runtime
