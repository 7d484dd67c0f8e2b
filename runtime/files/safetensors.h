#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/files/mapped_file.h"

namespace paceline::runtime {

/// Element types of the safetensors format (its names: "F32", "BF16", "F8_E4M3", ...).
enum class StoredType {
  kBool,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kU16,
  kI16,
  kF16,
  kBF16,
  kU32,
  kI32,
  kF32,
  kU64,
  kI64,
  kF64,
};

/// Bytes of one element.
std::size_t stored_size(StoredType type);

/// The format's own name, e.g. "BF16".
std::string_view stored_name(StoredType type);

/// "[576, 64]", for messages.
std::string shape_text(std::span<const std::int64_t> shape);

/// One tensor of a file, row-major, little-endian. Its bytes belong to the file's mapping.
struct StoredTensor {
  std::string name;
  StoredType type = StoredType::kF32;
  std::vector<std::int64_t> shape;   ///< empty for a scalar; a dimension may be 0
  std::span<const std::byte> bytes;  ///< product(shape) * stored_size(type), at any alignment

  std::int64_t num_elements() const {
    return static_cast<std::int64_t>(bytes.size() / stored_size(type));
  }
};

/// What a safetensors file says about itself.
struct SafetensorsHeader {
  std::vector<StoredTensor> tensors;            ///< sorted by name
  std::map<std::string, std::string> metadata;  ///< its `__metadata__`
  std::size_t header_bytes = 0;                 ///< length prefix and JSON: where data begins
};

/// Reads the header of a safetensors file that is wholly in `file` and checks it as the format
/// demands (https://github.com/huggingface/safetensors, "Format"): the length prefix within the
/// file and at most 100 MB; a JSON object of known keys, without duplicates; data that is covered
/// by the tensors exactly, without gap or overlap; offsets that agree with shape and dtype.
/// The tensors' `bytes` are views into `file`. `source` names the file in messages.
/// Throws ConfigError naming the file and, where there is one, the tensor.
SafetensorsHeader parse_safetensors(std::span<const std::byte> file, std::string_view source);

/// One mapped safetensors file.
class SafetensorsFile {
 public:
  /// Throws ConfigError, see parse_safetensors.
  static SafetensorsFile open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  const SafetensorsHeader& header() const { return header_; }
  std::span<const std::byte> bytes() const { return file_.bytes(); }
  /// See MappedFile.
  void release_memory() const noexcept { file_.release_memory(); }
  /// nullptr if there is no such tensor.
  const StoredTensor* find(std::string_view name) const;

 private:
  SafetensorsFile(MappedFile file, SafetensorsHeader header);

  MappedFile file_;
  SafetensorsHeader header_;
};

/// Reads `model.safetensors.index.json`: its `weight_map`, from tensor name to shard file name.
/// A shard must be a plain file name beside the index: no directory, no "..".
/// Throws ConfigError naming the source and the tensor.
std::map<std::string, std::string> parse_safetensors_index(std::string_view text,
                                                           std::string_view source);

/// The tensors of a model directory: `model.safetensors`, or else the shards that
/// `model.safetensors.index.json` names. Some drafters have another word than "model".
class Checkpoint {
 public:
  /// Maps the files and checks their headers; every tensor of an index must be in its shard.
  /// A tensor that a shard holds but the index does not name is left out.
  /// Throws ConfigError naming file and tensor.
  static Checkpoint open(const std::filesystem::path& directory, const std::string& stem = "model");

  /// nullptr if there is no such tensor.
  const StoredTensor* find(std::string_view name) const;
  /// Throws ConfigError naming the checkpoint and the tensor that it lacks.
  const StoredTensor& at(std::string_view name) const;
  /// Sorted.
  std::vector<std::string> names() const;
  /// Sum of the tensors' sizes in bytes.
  std::size_t total_bytes() const { return total_bytes_; }
  /// What was read, sorted by file name.
  std::span<const SafetensorsFile> files() const { return files_; }
  /// Counts bytes that were read and need not stay in memory: every 256 MiB of them all that was
  /// read is given back. Threads may call it at the same time.
  void was_read(std::size_t bytes) const noexcept;
  /// Gives the memory of all that was read back, so that a loaded model is not there twice.
  void release_memory() const noexcept {
    for (const SafetensorsFile& file : files_) file.release_memory();
  }
  /// The file (`model.safetensors` or its index) that messages name.
  const std::filesystem::path& path() const { return path_; }

 private:
  explicit Checkpoint(std::filesystem::path path) : path_(std::move(path)) {}
  void add(const StoredTensor& tensor);

  std::filesystem::path path_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, StoredTensor, std::less<>> tensors_;
  std::size_t total_bytes_ = 0;
  std::unique_ptr<std::atomic<std::size_t>> read_ = std::make_unique<std::atomic<std::size_t>>(0);
};

}  // namespace paceline::runtime
