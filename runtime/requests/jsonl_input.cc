#include "runtime/requests/jsonl_input.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "kernels/core/error.h"
#include "runtime/files/sha256.h"

namespace paceline::runtime {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

/// Without the byte order mark that some editors put before the first line.
std::string_view without_mark(std::string_view text, std::int64_t number) {
  if (number == 1 && text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  return text;
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r") == std::string_view::npos;
}

/// Up to `size` bytes at `offset`; fewer only at the end of the file.
std::size_t read_at(int fd, char* into, std::size_t size, std::uint64_t offset,
                    const std::filesystem::path& path) {
  std::size_t done = 0;
  while (done < size) {
    const ssize_t got = ::pread(fd, into + done, size - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      throw FatalError("{}: could not be read: {}", path.string(), std::strerror(errno));
    }
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  return done;
}

}  // namespace

JsonlInput JsonlInput::open(const std::filesystem::path& path, RequestRules rules) {
  JsonlInput input(path, std::move(rules));
  input.file_ = FileDescriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!input.file_.is_open()) {
    throw ConfigError("{}: cannot be opened for reading: {}", path.string(), std::strerror(errno));
  }
  struct stat status = {};
  if (::fstat(input.file_.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    throw ConfigError("{}: the input must be a regular file, it is read more than once",
                      path.string());
  }
  input.scan(static_cast<std::uint64_t>(status.st_size));
  input.check_ids();
  return input;
}

/// One pass in pieces. `pending` holds the part of a line that the pieces before brought; of a line
/// that is too long only as much as shows that it is.
void JsonlInput::scan(std::uint64_t file_bytes) {
  constexpr std::uint64_t kPieceBytes = std::uint64_t{1} << 20;
  Sha256 hash;
  // One byte more than a small file, so that one read also finds its end.
  std::vector<char> piece(std::min(kPieceBytes, file_bytes + 1));
  std::string pending;
  std::uint64_t offset = 0;
  std::uint64_t line_begin = 0;
  std::int64_t number = 1;
  const auto end_line = [&](std::uint64_t end) {
    add_line(number, line_begin, end - line_begin, pending);
    pending.clear();
    line_begin = end + 1;
    ++number;
  };
  for (;;) {
    const std::size_t got = read_at(file_.get(), piece.data(), piece.size(), offset, path_);
    std::string_view rest(piece.data(), got);
    hash.update(rest);
    while (!rest.empty()) {
      const std::size_t end = std::min(rest.find('\n'), rest.size());
      if (pending.size() <= kMaxLineBytes) pending.append(rest.substr(0, end));
      if (end == rest.size()) break;
      end_line(offset + got - rest.size() + end);
      rest.remove_prefix(end + 1);
    }
    offset += got;
    if (got < piece.size()) break;
  }
  if (line_begin < offset) end_line(offset);
  sha256_ = hash.finish_hex();
}

void JsonlInput::add_line(std::int64_t number, std::uint64_t offset, std::uint64_t bytes,
                          std::string_view text) {
  text = without_mark(text, number);
  if (bytes <= kMaxLineBytes && is_blank(text)) return;
  lines_.push_back({number, offset, bytes, request_id(text, number)});
}

void JsonlInput::check_ids() {
  lines_.shrink_to_fit();
  index_of_id_.reserve(lines_.size());
  for (std::size_t i = 0; i < lines_.size(); ++i) {
    const auto [first, is_new] = index_of_id_.emplace(lines_[i].id, i);
    if (!is_new) {
      throw ConfigError("{}: lines {} and {} have the same custom_id \"{}\"", path_.string(),
                        lines_[first->second].number, lines_[i].number, lines_[i].id);
    }
  }
}

std::optional<std::size_t> JsonlInput::find(std::string_view id) const {
  const auto found = index_of_id_.find(id);
  if (found == index_of_id_.end()) return std::nullopt;
  return found->second;
}

Request JsonlInput::read(std::size_t index) const {
  const Line& line = lines_.at(index);
  if (line.bytes > kMaxLineBytes) {
    throw RequestError("", "{} bytes, at most {} are accepted in a line", line.bytes,
                       kMaxLineBytes);
  }
  std::string bytes(line.bytes, '\0');
  const std::size_t got = read_at(file_.get(), bytes.data(), bytes.size(), line.offset, path_);
  const std::string_view text = without_mark(bytes, line.number);
  check(got == bytes.size() && request_id(text, line.number) == line.id,
        "{}: line {} has changed since the job began", path_.string(), line.number);
  return parse_request(text, line.number, rules_);
}

}  // namespace paceline::runtime
