#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace paceline::runtime {

/// A regular file mapped read-only. Bytes come from the page cache as they are touched, so a rank
/// that reads only its own shards of a tensor never pays for the rest of the file.
///
/// The size is taken from the open descriptor and is fixed from then on. A file that somebody
/// truncates while it is mapped ends the process with SIGBUS, as for every program that maps files;
/// files that are still being written are not a model.
class MappedFile {
 public:
  /// Throws ConfigError if the path cannot be opened or is not a regular file.
  static MappedFile open(const std::filesystem::path& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  const std::filesystem::path& path() const { return path_; }
  /// The whole file; stays valid, at the same address, when the MappedFile is moved.
  std::span<const std::byte> bytes() const { return {data_, size_}; }

  /// Gives the memory of what was read back; what is read again comes from the file.
  void release_memory() const noexcept;

 private:
  MappedFile(std::filesystem::path path, const std::byte* data, std::size_t size);
  void unmap() noexcept;

  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace paceline::runtime
