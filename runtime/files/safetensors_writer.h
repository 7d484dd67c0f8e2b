#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>

#include "runtime/files/safetensors.h"

namespace paceline::runtime {

/// Writes a safetensors file that appears whole or not at all (see AtomicFile). Data are laid out
/// by element size, largest first, then by name, behind a header that is padded to 8 bytes: so each
/// tensor is aligned to its elements. "format": "pt" is what Hugging Face's readers expect.
/// Throws ConfigError naming the path if it cannot be written, and FatalError if two tensors have
/// the same name, or one's bytes do not fit its shape and type.
void write_safetensors(const std::filesystem::path& path, std::span<const StoredTensor> tensors,
                       const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

}  // namespace paceline::runtime
