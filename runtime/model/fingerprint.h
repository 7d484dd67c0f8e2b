#pragma once

#include <filesystem>
#include <string>

#include "runtime/files/safetensors.h"

namespace paceline::runtime {

/// Weight files up to this size are hashed whole.
inline constexpr std::size_t kWholeHashBytes = std::size_t{512} << 20;

/// SHA-256 (64 hexadecimal digits) of what decides a model's answers: `config.json`,
/// `generation_config.json`, the tokenizer's and chat template's files, and the weights. Of a
/// weight file larger than `whole_hash_bytes` it takes the header, the size and the first 4 KiB of
/// every tensor: reading hundreds of gigabytes before each job would cost more than it protects,
/// and any training changes every tensor.
/// Throws ConfigError if a file cannot be read.
std::string model_fingerprint(const std::filesystem::path& directory, const Checkpoint& checkpoint,
                              std::size_t whole_hash_bytes = kWholeHashBytes);

}  // namespace paceline::runtime
