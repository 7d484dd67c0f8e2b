#include "runtime/files/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "kernels/core/error.h"

namespace paceline::runtime {

void AtomicFile::refuse(const std::filesystem::path& path) const {
  throw ConfigError("{}: cannot be written: {}", path.string(), std::strerror(errno));
}

AtomicFile::AtomicFile(std::filesystem::path path)
    : path_(std::move(path)),
      temporary_(path_.string() + ".tmp"),
      file_(::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) {
  if (!file_.is_open()) refuse(temporary_);
}

AtomicFile::~AtomicFile() {
  if (file_.is_open()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(file_.get(), bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) refuse(temporary_);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void AtomicFile::commit() {
  if (::fsync(file_.get()) != 0) refuse(temporary_);
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) refuse(path_);
  const FileDescriptor written = std::exchange(file_, FileDescriptor());
  // The rename itself lives in the directory.
  const auto parent = path_.has_parent_path() ? path_.parent_path() : std::filesystem::path(".");
  const FileDescriptor directory(::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.is_open() || ::fsync(directory.get()) != 0) refuse(parent);
}

}  // namespace paceline::runtime
