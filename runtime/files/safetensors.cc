#include "runtime/files/safetensors.h"

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <utility>

#include "kernels/core/error.h"
#include "runtime/files/json.h"

namespace paceline::runtime {
namespace {

constexpr std::size_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // as the reference implementation
constexpr std::size_t kMaxRank = 16;
constexpr int kHeaderDepth = 3;  // {tensor: {shape: [...]}}

struct TypeRow {
  StoredType type;
  std::string_view name;
  std::size_t size;
};

constexpr std::array kTypes = {
    TypeRow{StoredType::kBool, "BOOL", 1},      TypeRow{StoredType::kU8, "U8", 1},
    TypeRow{StoredType::kI8, "I8", 1},          TypeRow{StoredType::kF8E5M2, "F8_E5M2", 1},
    TypeRow{StoredType::kF8E4M3, "F8_E4M3", 1}, TypeRow{StoredType::kU16, "U16", 2},
    TypeRow{StoredType::kI16, "I16", 2},        TypeRow{StoredType::kF16, "F16", 2},
    TypeRow{StoredType::kBF16, "BF16", 2},      TypeRow{StoredType::kU32, "U32", 4},
    TypeRow{StoredType::kI32, "I32", 4},        TypeRow{StoredType::kF32, "F32", 4},
    TypeRow{StoredType::kU64, "U64", 8},        TypeRow{StoredType::kI64, "I64", 8},
    TypeRow{StoredType::kF64, "F64", 8},
};

const TypeRow& row_of(StoredType type) { return kTypes.at(static_cast<std::size_t>(type)); }

static_assert([] {
  for (std::size_t i = 0; i < kTypes.size(); ++i) {
    if (static_cast<std::size_t>(kTypes[i].type) != i) return false;
  }
  return true;
}());

/// A list of non-negative integers, for `shape` and `data_offsets`.
std::vector<std::uint64_t> counts_in(const Json& entry, std::string_view key,
                                     std::size_t max_length, const std::string& place) {
  const auto found = entry.find(key);
  if (found == entry.end() || !found->is_array() || found->size() > max_length) {
    throw ConfigError("{}: \"{}\" must be a list of at most {} integers", place, key, max_length);
  }
  std::vector<std::uint64_t> counts;
  for (const Json& item : *found) {
    if (!item.is_number_unsigned()) {
      throw ConfigError("{}: \"{}\" holds {}, expected integers from 0", place, key,
                        item.is_number() ? item.dump() : item.type_name());
    }
    counts.push_back(item.get<std::uint64_t>());
  }
  return counts;
}

const TypeRow& type_in(const Json& entry, const std::string& place) {
  const auto found = entry.find("dtype");
  if (found == entry.end() || !found->is_string()) {
    throw ConfigError("{}: \"dtype\" must be a string", place);
  }
  const auto& name = found->get_ref<const std::string&>();
  const auto row = std::find_if(kTypes.begin(), kTypes.end(),
                                [&](const TypeRow& candidate) { return candidate.name == name; });
  if (row == kTypes.end()) throw ConfigError("{}: unknown dtype \"{}\"", place, name);
  return *row;
}

/// product(shape) * element size; nothing if it does not fit 63 bits.
std::optional<std::uint64_t> bytes_of(const std::vector<std::uint64_t>& shape, std::size_t size) {
  std::int64_t product = static_cast<std::int64_t>(size);
  for (const std::uint64_t dimension : shape) {
    // Checked one by one even after a 0, so that every dimension itself fits int64.
    if (dimension > static_cast<std::uint64_t>(INT64_MAX)) return std::nullopt;
    if (__builtin_mul_overflow(product, static_cast<std::int64_t>(dimension), &product)) {
      return std::nullopt;
    }
  }
  return static_cast<std::uint64_t>(product);
}

StoredTensor tensor_of(const std::string& name, const Json& entry, std::span<const std::byte> data,
                       const std::string& place) {
  if (!entry.is_object()) throw ConfigError("{}: must be an object", place);
  for (const auto& item : entry.items()) {
    if (item.key() != "dtype" && item.key() != "shape" && item.key() != "data_offsets") {
      throw ConfigError("{}: unknown key \"{}\"", place, item.key());
    }
  }
  const TypeRow& type = type_in(entry, place);
  const auto shape = counts_in(entry, "shape", kMaxRank, place);
  const auto offsets = counts_in(entry, "data_offsets", 2, place);
  if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > data.size()) {
    throw ConfigError("{}: data_offsets {} must be a begin and an end within {} bytes of data",
                      place, entry.at("data_offsets").dump(), data.size());
  }
  const auto bytes = bytes_of(shape, type.size);
  if (!bytes) {
    throw ConfigError("{}: the dimensions {} have a product that overflows", place,
                      entry.at("shape").dump());
  }
  if (*bytes != offsets[1] - offsets[0]) {
    throw ConfigError("{}: {} of shape {} takes {} bytes, data_offsets give it {}", place,
                      type.name, entry.at("shape").dump(), *bytes, offsets[1] - offsets[0]);
  }
  return {name, type.type, {shape.begin(), shape.end()}, data.subspan(offsets[0], *bytes)};
}

std::map<std::string, std::string> metadata_of(const Json& entry, std::string_view source) {
  if (!entry.is_object()) throw ConfigError("{}: __metadata__ must be an object", source);
  std::map<std::string, std::string> metadata;
  for (const auto& item : entry.items()) {
    if (!item.value().is_string()) {
      throw ConfigError("{}: __metadata__ key \"{}\" must be a string", source, item.key());
    }
    metadata.emplace(item.key(), item.value().get<std::string>());
  }
  return metadata;
}

/// The tensors, in the order of their data, must follow each other from the first byte to the last.
void check_coverage(const std::vector<StoredTensor>& tensors, std::span<const std::byte> data,
                    std::string_view source) {
  std::vector<const StoredTensor*> in_order;
  for (const StoredTensor& tensor : tensors) in_order.push_back(&tensor);
  std::sort(in_order.begin(), in_order.end(), [](const auto* a, const auto* b) {
    // An empty tensor begins where its neighbour does; it comes first.
    return std::pair(a->bytes.data(), a->bytes.size()) <
           std::pair(b->bytes.data(), b->bytes.size());
  });
  std::size_t covered = 0;
  for (const StoredTensor* tensor : in_order) {
    const auto begin = static_cast<std::size_t>(tensor->bytes.data() - data.data());
    if (begin != covered) {
      throw ConfigError("{}: tensor \"{}\": its data begins at {}, {}, the data before ends at {}",
                        source, tensor->name, begin,
                        begin < covered ? "which overlaps" : "which leaves a gap", covered);
    }
    covered += tensor->bytes.size();
  }
  if (covered != data.size()) {
    throw ConfigError("{}: {} bytes of data, but the tensors end at {}", source, data.size(),
                      covered);
  }
}

}  // namespace

std::size_t stored_size(StoredType type) { return row_of(type).size; }

std::string_view stored_name(StoredType type) { return row_of(type).name; }

std::string shape_text(std::span<const std::int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

SafetensorsHeader parse_safetensors(std::span<const std::byte> file, std::string_view source) {
  if (file.size() < kLengthBytes) {
    throw ConfigError(
        "{}: {} bytes, a safetensors file begins with 8 that give its header's length", source,
        file.size());
  }
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < kLengthBytes; ++i) {
    length |= std::to_integer<std::uint64_t>(file[i]) << (8 * i);
  }
  if (length > kMaxHeaderBytes) {
    throw ConfigError("{}: a header of {} bytes, at most {} are accepted", source, length,
                      kMaxHeaderBytes);
  }
  if (length > file.size() - kLengthBytes) {
    throw ConfigError("{}: a header of {} bytes, but only {} follow: the file is truncated", source,
                      length, file.size() - kLengthBytes);
  }
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + kLengthBytes, length);
  if (!text.starts_with('{')) throw ConfigError("{}: its header must begin with {{", source);
  const Json json = parse_json(text, std::string(source) + ": header",
                               {.max_bytes = kMaxHeaderBytes, .max_depth = kHeaderDepth});

  SafetensorsHeader header;
  header.header_bytes = kLengthBytes + length;
  const auto data = file.subspan(header.header_bytes);
  for (const auto& item : json.items()) {  // sorted: Json's objects are
    if (item.key() == "__metadata__") {
      header.metadata = metadata_of(item.value(), source);
      continue;
    }
    const std::string place = fmt::format("{}: tensor \"{}\"", source, item.key());
    header.tensors.push_back(tensor_of(item.key(), item.value(), data, place));
  }
  check_coverage(header.tensors, data, source);
  return header;
}

SafetensorsFile::SafetensorsFile(MappedFile file, SafetensorsHeader header)
    : file_(std::move(file)), header_(std::move(header)) {}

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  MappedFile file = MappedFile::open(path);
  SafetensorsHeader header = parse_safetensors(file.bytes(), path.string());
  return {std::move(file), std::move(header)};
}

const StoredTensor* SafetensorsFile::find(std::string_view name) const {
  const auto found = std::lower_bound(
      header_.tensors.begin(), header_.tensors.end(), name,
      [](const StoredTensor& tensor, std::string_view key) { return tensor.name < key; });
  return found != header_.tensors.end() && found->name == name ? &*found : nullptr;
}

std::map<std::string, std::string> parse_safetensors_index(std::string_view text,
                                                           std::string_view source) {
  const Json json = parse_json(text, source);
  const auto found = json.is_object() ? json.find("weight_map") : json.end();
  if (found == json.end() || !found->is_object()) {
    throw ConfigError("{}: \"weight_map\" must be an object from tensor to file name", source);
  }
  std::map<std::string, std::string> weight_map;
  for (const auto& item : found->items()) {
    const auto* shard = item.value().get_ptr<const std::string*>();
    if (shard == nullptr) {
      throw ConfigError("{}: weight_map \"{}\" must be a file name", source, item.key());
    }
    constexpr std::string_view kForbidden("/\\\0", 3);
    if (shard->empty() || *shard == "." || shard->find("..") != std::string::npos ||
        shard->find_first_of(kForbidden) != std::string::npos) {
      throw ConfigError(
          "{}: weight_map \"{}\" names \"{}\", expected a plain file name beside the index", source,
          item.key(), *shard);
    }
    weight_map.emplace(item.key(), *shard);
  }
  return weight_map;
}

void Checkpoint::add(const StoredTensor& tensor) {
  total_bytes_ += tensor.bytes.size();
  tensors_.emplace(tensor.name, tensor);
}

Checkpoint Checkpoint::open(const std::filesystem::path& directory, const std::string& stem) {
  std::error_code failure;  // what cannot be looked at is named when it is opened
  const auto single = directory / (stem + ".safetensors");
  if (std::filesystem::exists(single, failure)) {
    Checkpoint checkpoint(single);
    checkpoint.files_.push_back(SafetensorsFile::open(single));
    for (const auto& tensor : checkpoint.files_[0].header().tensors) checkpoint.add(tensor);
    return checkpoint;
  }
  const auto index = directory / (stem + ".safetensors.index.json");
  if (!std::filesystem::exists(index, failure)) {
    throw ConfigError("{}: neither {}.safetensors nor {}.safetensors.index.json is there",
                      directory.string(), stem, stem);
  }
  Checkpoint checkpoint(index);
  const auto weight_map = parse_safetensors_index(read_file(index), index.string());
  std::set<std::string> shards;
  for (const auto& [name, shard] : weight_map) shards.insert(shard);
  std::map<std::string, std::size_t> position;
  for (const std::string& shard : shards) {
    position.emplace(shard, checkpoint.files_.size());
    checkpoint.files_.push_back(SafetensorsFile::open(directory / shard));
  }
  for (const auto& [name, shard] : weight_map) {
    const StoredTensor* tensor = checkpoint.files_[position.at(shard)].find(name);
    if (tensor == nullptr) {
      throw ConfigError("{}: tensor \"{}\" should be in {}, which does not hold it", index.string(),
                        name, shard);
    }
    checkpoint.add(*tensor);
  }
  return checkpoint;
}

void Checkpoint::was_read(std::size_t bytes) const noexcept {
  constexpr std::size_t kAtOnce = std::size_t{256} << 20;
  const std::size_t before = read_->fetch_add(bytes, std::memory_order_relaxed);
  if (before / kAtOnce != (before + bytes) / kAtOnce) release_memory();
}

const StoredTensor* Checkpoint::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

const StoredTensor& Checkpoint::at(std::string_view name) const {
  const StoredTensor* tensor = find(name);
  if (tensor == nullptr) throw ConfigError("{}: tensor \"{}\" is missing", path_.string(), name);
  return *tensor;
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : tensors_) names.push_back(name);
  return names;
}

}  // namespace paceline::runtime
