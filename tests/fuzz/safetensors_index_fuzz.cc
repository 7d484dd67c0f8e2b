// An index from a stranger: it is refused, or every shard is a plain file name.

#include <cstdint>
#include <filesystem>
#include <string_view>

#include "kernels/core/error.h"
#include "runtime/files/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const auto weight_map = paceline::runtime::parse_safetensors_index(text, "fuzz");
    for (const auto& [name, shard] : weight_map) {
      const auto path = std::filesystem::path("model") / shard;
      paceline::check(path.parent_path() == "model" && path == path.lexically_normal(),
                      "{} leaves the directory", shard);
    }
  } catch (const paceline::ConfigError&) {
  }
  return 0;
}
