#include "runtime/requests/output_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>

#include "kernels/core/error.h"
#include "runtime/files/json.h"

namespace paceline::runtime {
namespace {

/// Far above what a line of an accepted request can grow to.
constexpr std::size_t kMaxOutputLineBytes = std::size_t{512} << 20;

/// Walks down through objects; nullptr where a key is missing.
const Json* at_path(const Json& json, std::initializer_list<const char*> keys) {
  const Json* value = &json;
  for (const char* key : keys) {
    if (!value->is_object()) return nullptr;
    const auto found = value->find(key);
    if (found == value->end()) return nullptr;
    value = &*found;
  }
  return value;
}

std::int64_t count_at(const Json& json, std::initializer_list<const char*> keys,
                      const std::string& place) {
  const Json* value = at_path(json, keys);
  if (value == nullptr || !value->is_number_unsigned()) {
    throw ConfigError("{}: no count at {}", place, fmt::join(keys, "."));
  }
  return value->get<std::int64_t>();
}

Sha256::Digest digest_at(const Json& json, const std::string& place) {
  const Json* value = at_path(json, {"paceline", "token_sha256"});
  Sha256::Digest digest = {};
  const auto* text = value ? value->get_ptr<const std::string*>() : nullptr;
  const auto digit = [](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  bool valid = text != nullptr && text->size() == 2 * digest.size();
  for (std::size_t i = 0; valid && i < digest.size(); ++i) {
    const int high = digit((*text)[2 * i]);
    const int low = digit((*text)[2 * i + 1]);
    valid = high >= 0 && low >= 0;
    if (valid) digest[i] = static_cast<std::byte>(16 * high + low);
  }
  if (!valid) throw ConfigError("{}: no digest at paceline.token_sha256", place);
  return digest;
}

FinishedLine finished_line(const Json& json, const std::string& place) {
  FinishedLine line;
  const Json* error = at_path(json, {"error"});
  line.is_error = error != nullptr && !error->is_null();
  if (line.is_error) return line;
  line.token_digest = digest_at(json, place);
  line.prompt_tokens = count_at(json, {"response", "body", "usage", "prompt_tokens"}, place);
  line.completion_tokens =
      count_at(json, {"response", "body", "usage", "completion_tokens"}, place);
  line.steps = count_at(json, {"paceline", "steps"}, place);
  return line;
}

/// Reads one whole line of an earlier run into its request's place.
void add_line(const std::string& text, const std::string& place, const JsonlInput& input,
              OutputState& state) {
  const Json json = parse_json(text, place, {.max_bytes = kMaxOutputLineBytes});
  const Json* id = at_path(json, {"custom_id"});
  if (id == nullptr || !id->is_string()) throw ConfigError("{}: no custom_id", place);
  const auto& name = id->get_ref<const std::string&>();
  const auto index = input.find(name);
  if (!index) {
    throw ConfigError("{}: the custom_id \"{}\" is not in {}", place, name, input.path().string());
  }
  if (state.finished[*index]) {
    throw ConfigError("{}: the custom_id \"{}\" is answered twice", place, name);
  }
  state.finished[*index] = finished_line(json, place);
}

void read_lines(const JsonlInput& input, OutputState& state) {
  std::ifstream file(state.path, std::ios::binary);
  if (!file) throw ConfigError("{}: cannot be opened for reading", state.path.string());
  std::string line;
  for (std::int64_t number = 1; std::getline(file, line); ++number) {
    if (file.eof()) {  // the last line has no end: the write was cut short
      state.torn_bytes = line.size();
      return;
    }
    add_line(line, fmt::format("{} line {}", state.path.string(), number), input, state);
    state.whole_bytes += line.size() + 1;
  }
  if (!file.eof()) throw ConfigError("{}: could not be read to its end", state.path.string());
}

}  // namespace

std::size_t OutputState::num_finished() const {
  return static_cast<std::size_t>(std::count_if(finished.begin(), finished.end(),
                                                [](const auto& line) { return line.has_value(); }));
}

OutputState inspect_output(const std::filesystem::path& path, bool resume,
                           const OutputManifest& manifest, const JsonlInput& input) {
  OutputState state{.path = path, .manifest = manifest};
  state.finished.resize(input.size());
  std::error_code failure;
  const bool exists = std::filesystem::exists(path, failure);
  if (path == "-" || (exists && !std::filesystem::is_regular_file(path, failure))) {
    if (std::filesystem::is_directory(path, failure)) {
      throw ConfigError("{}: is a directory, expected a file to write answers to", path.string());
    }
    if (resume) {
      throw ConfigError("--resume needs an output file, {} cannot be read back", path.string());
    }
    state.is_stream = true;
    return state;
  }
  const bool has_lines = exists && std::filesystem::file_size(path, failure) > 0;
  if (has_lines && !resume) {
    throw ConfigError("{}: already holds answers. --resume continues them; or name another output",
                      path.string());
  }
  if (!resume || !exists) return state;
  const auto saved = read_manifest(manifest_path(path));
  if (saved) {
    check_same_manifest(*saved, manifest, manifest_path(path));
    state.has_manifest = true;
  } else if (has_lines) {
    throw ConfigError("{}: cannot be resumed, its manifest {} is not there", path.string(),
                      manifest_path(path).string());
  }
  if (has_lines) read_lines(input, state);
  return state;
}

OutputFile OutputFile::open(const OutputState& state) {
  if (state.path == "-") return {state.path, FileDescriptor(::dup(STDOUT_FILENO)), true};
  FileDescriptor file(::open(state.path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
  if (!file.is_open()) {
    throw ConfigError("{}: cannot be opened for writing: {}", state.path.string(),
                      std::strerror(errno));
  }
  if (state.is_stream) return {state.path, std::move(file), true};
  // A file system without locks says so with another error; then there is nothing to hold.
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    throw ConfigError("{}: another process is writing it", state.path.string());
  }
  // Whoever held the file until now may have written to it since it was inspected.
  const auto size = ::lseek(file.get(), 0, SEEK_END);
  if (size < 0 || static_cast<std::uint64_t>(size) != state.whole_bytes + state.torn_bytes) {
    throw ConfigError("{}: has changed since the job began", state.path.string());
  }
  if (!state.has_manifest) write_manifest(manifest_path(state.path), state.manifest);
  if (state.torn_bytes > 0 && ::ftruncate(file.get(), static_cast<off_t>(state.whole_bytes)) != 0) {
    throw ConfigError("{}: its torn last line could not be cut off: {}", state.path.string(),
                      std::strerror(errno));
  }
  return {state.path, std::move(file), false};
}

void OutputFile::write_line(std::string_view line) {
  std::string bytes;
  bytes.reserve(line.size() + 1);
  bytes.append(line).push_back('\n');
  std::string_view rest = bytes;
  // One call writes it all, unless the disk is nearly full or a signal interrupts a pipe; then the
  // next call tells which.
  while (!rest.empty()) {
    const ssize_t written = ::write(file_.get(), rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      throw FatalError("{}: an answer could not be written: {}", path_.string(),
                       written < 0 ? std::strerror(errno) : "no space");
    }
    rest.remove_prefix(static_cast<std::size_t>(written));
  }
}

void OutputFile::finish() {
  if (!is_stream_ && ::fsync(file_.get()) != 0) {
    throw FatalError("{}: could not be forced to disk: {}", path_.string(), std::strerror(errno));
  }
}

}  // namespace paceline::runtime
