#pragma once

#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/files/json.h"
#include "runtime/files/safetensors.h"

namespace paceline::runtime {

/// A tensor to be written: data, or zeros if `data` is empty.
struct TensorToWrite {
  std::string name;
  StoredType type = StoredType::kF32;
  std::vector<std::int64_t> shape;
  std::string data;
};

/// The bytes of a safetensors file that holds these tensors in this order.
inline std::string safetensors_text(const std::vector<TensorToWrite>& tensors) {
  OrderedJson header = OrderedJson::object();
  std::string data;
  for (const TensorToWrite& tensor : tensors) {
    const std::int64_t elements = std::accumulate(tensor.shape.begin(), tensor.shape.end(),
                                                  std::int64_t{1}, std::multiplies<>());
    const std::size_t begin = data.size();
    data += tensor.data;
    data.resize(begin + static_cast<std::size_t>(elements) * stored_size(tensor.type));
    header[tensor.name] = {{"dtype", std::string(stored_name(tensor.type))},
                           {"shape", tensor.shape},
                           {"data_offsets", {begin, data.size()}}};
  }
  const std::string text = header.dump();
  std::string file;
  for (std::size_t i = 0; i < 8; ++i) file += static_cast<char>(text.size() >> (8 * i) & 255);
  return file + text + data;
}

}  // namespace paceline::runtime
