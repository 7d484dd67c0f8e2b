#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

#include "runtime/files/file_descriptor.h"
#include "runtime/files/sha256.h"
#include "runtime/requests/jsonl_input.h"
#include "runtime/requests/output_manifest.h"

namespace paceline::runtime {

/// What an earlier run wrote about one request.
struct FinishedLine {
  bool is_error = false;
  Sha256::Digest token_digest = {};  ///< zeros for an error
  std::int64_t prompt_tokens = 0;
  std::int64_t completion_tokens = 0;
  std::int64_t steps = 0;
};

/// What is there before a job writes, found without changing anything.
struct OutputState {
  std::filesystem::path path;
  OutputManifest manifest;
  bool is_stream = false;     ///< standard output, a pipe, a device: no manifest, nothing to resume
  bool has_manifest = false;  ///< an equal one is there already
  std::uint64_t whole_bytes = 0;  ///< of the lines that count; what follows is a torn line
  std::uint64_t torn_bytes = 0;   ///< to be cut off
  /// For each request of the input, in its order: the line that answers it, if there is one.
  std::vector<std::optional<FinishedLine>> finished = {};

  std::size_t num_finished() const;
};

/// Looks at an output before work starts. `path` may be `-` for standard output.
/// Without `resume` a file that holds anything is refused. With it the manifest beside the file is
/// compared and the file's lines are read: each must answer a request of `input`, none twice, and
/// only the last may be torn (cut short, without a line end). An output that is not there yet is
/// begun, whatever manifest an earlier one left.
/// Throws ConfigError naming the file and the line or the difference.
OutputState inspect_output(const std::filesystem::path& path, bool resume,
                           const OutputManifest& manifest, const JsonlInput& input);

/// The output file while a job writes it. Only one process at a time may.
class OutputFile {
 public:
  /// Writes the manifest if it is not there, cuts off a torn line and opens the file for appending.
  /// Throws ConfigError if that fails or another process writes the same file.
  static OutputFile open(const OutputState& state);

  /// Appends one line and its end with one write(2), so that a reader, and a resumed job, see it
  /// whole or as the torn last one. Throws FatalError if it could not be written.
  void write_line(std::string_view line);

  /// Forces everything to disk (where the output is a file). Throws FatalError.
  void finish();

 private:
  OutputFile(std::filesystem::path path, FileDescriptor file, bool is_stream)
      : path_(std::move(path)), file_(std::move(file)), is_stream_(is_stream) {}

  std::filesystem::path path_;
  FileDescriptor file_;
  bool is_stream_;
};

}  // namespace paceline::runtime
