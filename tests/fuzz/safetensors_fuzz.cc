// A safetensors file from a stranger: it is refused, or every view that it yields is within it.

#include <cstdint>
#include <span>

#include "kernels/core/error.h"
#include "runtime/files/safetensors.h"

using paceline::check;
using paceline::ConfigError;
using paceline::runtime::parse_safetensors;
using paceline::runtime::SafetensorsHeader;
using paceline::runtime::stored_size;
using paceline::runtime::StoredTensor;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::byte> file = std::as_bytes(std::span(data, size));
  SafetensorsHeader header;
  try {
    header = parse_safetensors(file, "fuzz");
  } catch (const ConfigError&) {
    return 0;
  }
  std::size_t total = header.header_bytes;
  for (const StoredTensor& tensor : header.tensors) {
    std::size_t elements = 1;
    for (const std::int64_t dimension : tensor.shape) {
      elements *= static_cast<std::size_t>(dimension);
    }
    check(tensor.bytes.size() == elements * stored_size(tensor.type), "size of {}", tensor.name);
    check(tensor.bytes.empty() || (tensor.bytes.data() >= file.data() + header.header_bytes &&
                                   tensor.bytes.data() + tensor.bytes.size() <= file.data() + size),
          "place of {}", tensor.name);
    total += tensor.bytes.size();
  }
  check(total == size, "{} bytes are covered of {}", total, size);
  return 0;
}
