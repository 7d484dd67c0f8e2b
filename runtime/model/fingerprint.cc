#include "runtime/model/fingerprint.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "runtime/files/sha256.h"

namespace paceline::runtime {
namespace {

constexpr std::array kFiles = {
    "config.json",           "generation_config.json",  "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
    "chat_template.json"};
constexpr std::size_t kSampleBytes = 4096;

std::string weights_digest(const SafetensorsFile& file, std::size_t whole_hash_bytes) {
  if (file.bytes().size() <= whole_hash_bytes) return sha256_hex(file.bytes());
  Sha256 hash;
  hash.update(file.bytes().first(file.header().header_bytes));
  for (const StoredTensor& tensor : file.header().tensors) {
    hash.update(tensor.bytes.first(std::min(tensor.bytes.size(), kSampleBytes)));
  }
  return hash.finish_hex();
}

}  // namespace

std::string model_fingerprint(const std::filesystem::path& directory, const Checkpoint& checkpoint,
                              std::size_t whole_hash_bytes) {
  // A list of lines "name size digest": two different sets of files cannot run into one text.
  Sha256 hash;
  for (const char* name : kFiles) {
    std::error_code failure;
    const auto path = directory / name;
    if (!std::filesystem::is_regular_file(path, failure)) continue;
    hash.update(fmt::format("{} {} {}\n", name, std::filesystem::file_size(path, failure),
                            sha256_of_file(path)));
  }
  for (const SafetensorsFile& file : checkpoint.files()) {
    hash.update(fmt::format("{} {} {}\n", file.path().filename().string(), file.bytes().size(),
                            weights_digest(file, whole_hash_bytes)));
    file.release_memory();  // weights are loaded later: what was read must not stand beside them
  }
  return hash.finish_hex();
}

}  // namespace paceline::runtime
