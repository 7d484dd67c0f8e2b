#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

#include "runtime/files/file_descriptor.h"

namespace paceline::runtime {

/// A file that appears whole under its name, in place of what was there, or not at all: written to
/// `path`.tmp, and renamed when it is on the disk.
class AtomicFile {
 public:
  /// Throws ConfigError naming the path if it cannot be written.
  explicit AtomicFile(std::filesystem::path path);
  /// Removes what was written if it was not committed.
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Appends. Throws ConfigError naming the path.
  void write(std::span<const std::byte> bytes);
  /// Once, as the last call. Throws ConfigError naming the path.
  void commit();

 private:
  [[noreturn]] void refuse(const std::filesystem::path& path) const;

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  FileDescriptor file_;
};

}  // namespace paceline::runtime
