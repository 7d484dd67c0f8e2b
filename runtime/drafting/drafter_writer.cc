#include "runtime/drafting/drafter_writer.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/core/host_matrix.h"
#include "runtime/files/atomic_file.h"
#include "runtime/files/json.h"
#include "runtime/files/safetensors_writer.h"

namespace paceline::runtime {
namespace {

using drafter::DrafterConfig;
using kernels::WeightFormat;

constexpr std::int64_t kGroup = 32;

bool is_medusa(const DrafterConfig& config) { return config.kind == drafter::DrafterKind::kMedusa; }

OrderedJson recurrent_json(const DrafterConfig& config) {
  return {{"architectures", OrderedJson::array({"Drafter"})},
          {"model_type", "recurrent_drafting_drafter"},
          {"vocab_size", config.vocab_size},
          {"hidden_size", config.hidden_size},
          {"exit_dim", config.exit_dim},
          {"num_draft_layers", config.num_draft_layers},
          {"rnn", config.rnn}};
}

OrderedJson medusa_json(const DrafterConfig& config) {
  OrderedJson json = {{"model_type", "medusa"},
                      {"medusa_num_heads", config.num_heads},
                      {"medusa_num_layers", config.num_draft_layers},
                      {"base_model_name_or_path", config.base_model},
                      {"vocab_size", config.vocab_size},
                      {"hidden_size", config.hidden_size}};
  if (!config.choices.empty()) json["medusa_choices"] = config.choices;
  return json;
}

OrderedJson config_json(const DrafterConfig& config, WeightFormat matrices) {
  OrderedJson json = is_medusa(config) ? medusa_json(config) : recurrent_json(config);
  json["torch_dtype"] = matrices == WeightFormat::kBf16 ? "bfloat16" : "float32";
  if (matrices == WeightFormat::kInt8Group) {
    json["quantization_config"] = {{"quant_method", "paceline"}, {"group_size", kGroup}};
  }
  if (config.tied_head) json["tied_head"] = true;
  if (!config.draft_vocab.empty()) json["draft_vocab"] = config.draft_vocab;
  return json;
}

void check_writable(const std::filesystem::path& directory, const drafter::HeadParameters& head,
                    WeightFormat matrices) {
  check(matrices == WeightFormat::kFp32 || matrices == WeightFormat::kBf16 ||
            matrices == WeightFormat::kInt8Group,
        "a drafter is written as fp32, bf16 or int8");
  const DrafterConfig& config = head.config();
  if (matrices == WeightFormat::kInt8Group &&
      (config.hidden_size % kGroup != 0 || config.exit_dim % kGroup != 0)) {
    throw ConfigError(
        "{}: a drafter with hidden_size {} and exit_dim {} cannot be written as int8, expected "
        "multiples of {}",
        directory.string(), config.hidden_size, config.exit_dim, kGroup);
  }
  for (const drafter::TensorPlace& place : head.layout().tensors) {
    const std::span<const float> values = head.tensor(place.name);
    if (!std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); })) {
      throw ConfigError("{}: {} has a number that is not finite", directory.string(), place.name);
    }
  }
}

/// The tensors of a head as they are stored.
class StoredHead {
 public:
  StoredHead(const drafter::HeadParameters& head, WeightFormat matrices) {
    for (const drafter::TensorPlace& place : head.layout().tensors) {
      const std::span<const float> values = head.tensor(place.name);
      if (place.shape.size() == 1) {
        add(place.name, StoredType::kF32, place.shape, std::as_bytes(values));
      } else {
        add_matrix(place, values, matrices);
      }
    }
  }

  std::span<const StoredTensor> tensors() const { return tensors_; }

 private:
  void add(std::string name, StoredType type, std::vector<std::int64_t> shape,
           std::span<const std::byte> bytes) {
    tensors_.push_back({std::move(name), type, std::move(shape), bytes});
  }

  void add_matrix(const drafter::TensorPlace& place, std::span<const float> values,
                  WeightFormat format) {
    const std::span<const std::byte> bytes = std::as_bytes(values);
    kernels::HostMatrix& matrix = memory_.emplace_back();
    matrix.rows = place.shape[0];
    matrix.cols = place.shape[1];
    matrix.values.assign(bytes.begin(), bytes.end());
    if (format != WeightFormat::kFp32) matrix = kernels::convert(matrix, format);
    if (format != WeightFormat::kInt8Group) {
      const StoredType type = format == WeightFormat::kBf16 ? StoredType::kBF16 : StoredType::kF32;
      add(place.name, type, place.shape, matrix.values);
      return;
    }
    const std::string linear = place.name.substr(0, place.name.rfind(".weight"));
    add(linear + ".qweight", StoredType::kI8, place.shape, matrix.values);
    add(linear + ".scales", StoredType::kF16, {matrix.rows, matrix.cols / kGroup}, matrix.scales);
  }

  std::deque<kernels::HostMatrix> memory_;
  std::vector<StoredTensor> tensors_;
};

}  // namespace

void write_drafter(const std::filesystem::path& directory, const drafter::HeadParameters& head,
                   WeightFormat matrices) {
  check_writable(directory, head, matrices);
  std::error_code failure;
  std::filesystem::create_directories(directory, failure);
  if (failure) {
    throw ConfigError("{}: cannot be made: {}", directory.string(), failure.message());
  }
  const char* name = is_medusa(head.config()) ? "medusa_lm_head.safetensors" : "model.safetensors";
  write_safetensors(directory / name, StoredHead(head, matrices).tensors());
  const std::string config = config_json(head.config(), matrices).dump() + "\n";
  AtomicFile file(directory / "config.json");
  file.write(std::as_bytes(std::span(config)));
  file.commit();
}

}  // namespace paceline::runtime
