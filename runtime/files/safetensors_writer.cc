#include "runtime/files/safetensors_writer.h"

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <vector>

#include "kernels/core/error.h"
#include "runtime/files/atomic_file.h"
#include "runtime/files/json.h"

namespace paceline::runtime {
namespace {

constexpr std::size_t kAlignment = 8;

void check_tensor(const StoredTensor& tensor) {
  std::int64_t bytes = static_cast<std::int64_t>(stored_size(tensor.type));
  for (const std::int64_t dimension : tensor.shape) {
    check(dimension >= 0 && !__builtin_mul_overflow(bytes, dimension, &bytes),
          "tensor \"{}\" has shape {}", tensor.name, shape_text(tensor.shape));
  }
  check(std::ssize(tensor.bytes) == bytes, "tensor \"{}\", {} of shape {}, has {} bytes",
        tensor.name, stored_name(tensor.type), shape_text(tensor.shape), tensor.bytes.size());
}

std::vector<const StoredTensor*> in_file_order(std::span<const StoredTensor> tensors) {
  std::vector<const StoredTensor*> order;
  for (const StoredTensor& tensor : tensors) {
    check_tensor(tensor);
    order.push_back(&tensor);
  }
  const auto key = [](const StoredTensor* tensor) {
    return std::tuple(-static_cast<int>(stored_size(tensor->type)), std::string_view(tensor->name));
  };
  std::sort(order.begin(), order.end(),
            [&](const auto* a, const auto* b) { return key(a) < key(b); });
  return order;
}

std::string header_text(const std::vector<const StoredTensor*>& order,
                        const std::map<std::string, std::string>& metadata) {
  OrderedJson header = OrderedJson::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::size_t begin = 0;
  for (const StoredTensor* tensor : order) {
    check(tensor->name != "__metadata__" && !header.contains(tensor->name),
          "two tensors are named \"{}\"", tensor->name);
    const std::size_t end = begin + tensor->bytes.size();
    header[tensor->name] = {{"dtype", stored_name(tensor->type)},
                            {"shape", tensor->shape},
                            {"data_offsets", {begin, end}}};
    begin = end;
  }
  std::string text = header.dump();
  text.append((kAlignment - text.size() % kAlignment) % kAlignment, ' ');
  return text;
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, std::span<const StoredTensor> tensors,
                       const std::map<std::string, std::string>& metadata) {
  const std::vector<const StoredTensor*> order = in_file_order(tensors);
  const std::string header = header_text(order, metadata);
  const std::uint64_t length = header.size();  // little-endian, as this machine is
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(std::as_bytes(std::span(header)));
  for (const StoredTensor* tensor : order) file.write(tensor->bytes);
  file.commit();
}

}  // namespace paceline::runtime
