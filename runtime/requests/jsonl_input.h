#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "runtime/files/file_descriptor.h"
#include "runtime/requests/request.h"
#include "runtime/requests/request_parser.h"

namespace paceline::runtime {

/// An input file, one request a line. Opening it reads the file once, for its hash and the ids;
/// requests are read from the file when they are asked for, so that memory holds an id and an
/// offset for each line and not the prompts.
///
/// Blank lines hold no request but count in line numbers. A UTF-8 byte order mark at the start,
/// CRLF line ends and a last line without an end are accepted.
class JsonlInput {
 public:
  /// Throws ConfigError if the file cannot be read or two lines have the same id (naming both).
  static JsonlInput open(const std::filesystem::path& path, RequestRules rules);

  /// Requests, good and bad.
  std::size_t size() const { return lines_.size(); }
  /// The id of request `index`, from 0 in input order.
  const std::string& id(std::size_t index) const { return lines_.at(index).id; }
  /// Its line number, from 1.
  std::int64_t line(std::size_t index) const { return lines_.at(index).number; }
  /// The request with that id.
  std::optional<std::size_t> find(std::string_view id) const;

  /// Reads and checks request `index`. Throws RequestError if its line is bad, FatalError if the
  /// file is no longer what it was when it was opened. May be called from several threads.
  Request read(std::size_t index) const;

  /// Of the whole file, as 64 hexadecimal digits.
  const std::string& sha256() const { return sha256_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  struct Line {
    std::int64_t number = 0;
    std::uint64_t offset = 0;  ///< of its first byte in the file
    std::uint64_t bytes = 0;   ///< without its line end
    std::string id;
  };

  JsonlInput(std::filesystem::path path, RequestRules rules)
      : path_(std::move(path)), rules_(std::move(rules)) {}
  void scan(std::uint64_t file_bytes);
  void add_line(std::int64_t number, std::uint64_t offset, std::uint64_t bytes,
                std::string_view text);
  void check_ids();

  std::filesystem::path path_;
  RequestRules rules_;
  FileDescriptor file_;
  std::vector<Line> lines_;
  std::unordered_map<std::string_view, std::size_t> index_of_id_;  ///< views into lines_
  std::string sha256_;
};

}  // namespace paceline::runtime
