#include "runtime/model/checkpoint_layout.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "kernels/core/error.h"

namespace paceline::runtime {
namespace {

using Shape = std::vector<std::int64_t>;

bool is_float(StoredType type) {
  return type == StoredType::kF32 || type == StoredType::kF16 || type == StoredType::kBF16;
}

[[noreturn]] void refuse(const Checkpoint& checkpoint, const StoredTensor& tensor,
                         std::string_view types, const Shape& shape) {
  throw ConfigError("{}: tensor \"{}\" is {} {}, expected {} {}", checkpoint.path().string(),
                    tensor.name, stored_name(tensor.type), shape_text(tensor.shape), types,
                    shape_text(shape));
}

const StoredTensor& float_tensor(const Checkpoint& checkpoint, std::string_view name,
                                 const Shape& shape) {
  const StoredTensor& tensor = checkpoint.at(name);
  if (!is_float(tensor.type) || tensor.shape != shape) {
    refuse(checkpoint, tensor, "F32, F16 or BF16", shape);
  }
  return tensor;
}

const StoredTensor& exact_tensor(const Checkpoint& checkpoint, std::string_view name,
                                 StoredType type, const Shape& shape) {
  const StoredTensor& tensor = checkpoint.at(name);
  if (tensor.type != type || tensor.shape != shape) {
    refuse(checkpoint, tensor, stored_name(type), shape);
  }
  return tensor;
}

LinearFormat float_format(StoredType type) {
  if (type == StoredType::kF16) return LinearFormat::kF16;
  return type == StoredType::kBF16 ? LinearFormat::kBF16 : LinearFormat::kF32;
}

StoredLinear quantized_linear(const Checkpoint& checkpoint, const std::string& name, std::int64_t n,
                              std::int64_t k) {
  const StoredTensor& codes = checkpoint.at(name + ".qweight");
  if (k % kQuantizationGroup != 0) {
    throw ConfigError("{}: tensor \"{}\": its rows of {} weights are not whole groups of {}",
                      checkpoint.path().string(), codes.name, k, kQuantizationGroup);
  }
  const Shape groups = {n, k / kQuantizationGroup};
  StoredLinear linear;
  if (codes.type == StoredType::kI8) {
    linear.format = LinearFormat::kInt8;
    linear.weight = &exact_tensor(checkpoint, codes.name, StoredType::kI8, {n, k});
  } else {
    linear.format = LinearFormat::kInt4;
    linear.weight = &exact_tensor(checkpoint, codes.name, StoredType::kU8, {n, k / 2});
    linear.minimums = &exact_tensor(checkpoint, name + ".minimums", StoredType::kF16, groups);
  }
  linear.scales = &exact_tensor(checkpoint, name + ".scales", StoredType::kF16, groups);
  return linear;
}

/// The scales multiply: `weight_scale`. Block scales are called `weight_scale_inv`.
StoredLinear fp8_linear(const Checkpoint& checkpoint, const ModelConfig& config,
                        const std::string& name, const Shape& shape) {
  const StoredTensor& weight =
      exact_tensor(checkpoint, name + ".weight", StoredType::kF8E4M3, shape);
  if (const StoredTensor* blocks = checkpoint.find(name + ".weight_scale_inv")) {
    throw ConfigError(
        "{}: tensor \"{}\" holds fp8 scales of blocks, which are not supported, expected \"{}.{}\" "
        "with one for the tensor or for each output",
        checkpoint.path().string(), blocks->name, name, "weight_scale");
  }
  if (!config.fp8_quantized) {
    throw ConfigError(
        "{}: tensor \"{}\" is F8_E4M3, but config.json has no quantization_config with "
        "quant_method \"fp8\" or \"compressed-tensors\"",
        checkpoint.path().string(), weight.name);
  }
  const StoredTensor& scales = checkpoint.at(name + ".weight_scale");
  const std::int64_t n = shape[0];
  const bool fits = scales.shape.empty() || scales.shape == Shape{1} ||
                    scales.shape == Shape{1, 1} || scales.shape == Shape{n} ||
                    scales.shape == Shape{n, 1};
  if (!is_float(scales.type) || !fits) {
    refuse(checkpoint, scales, "one number, F32, F16 or BF16, or", {n, 1});
  }
  return {.format = LinearFormat::kFp8, .weight = &weight, .scales = &scales};
}

/// Walks over every tensor that the model needs, and remembers which it has seen.
class LayoutCheck {
 public:
  LayoutCheck(const Checkpoint& checkpoint, const ModelConfig& config)
      : checkpoint_(checkpoint), config_(config) {}

  void run() {
    linear("model.embed_tokens", config_.vocab_size, config_.hidden_size);
    for (std::int64_t i = 0; i < config_.num_layers; ++i) {
      layer("model.layers." + std::to_string(i) + ".");
    }
    vector("model.norm.weight", config_.hidden_size);
    if (!config_.tie_word_embeddings) {
      linear("lm_head", config_.vocab_size, config_.hidden_size);
    }
    refuse_others();
  }

 private:
  void layer(const std::string& prefix) {
    const std::int64_t hidden = config_.hidden_size;
    vector(prefix + "input_layernorm.weight", hidden);
    linear(prefix + "self_attn.q_proj", config_.q_width(), hidden);
    linear(prefix + "self_attn.k_proj", config_.kv_width(), hidden);
    linear(prefix + "self_attn.v_proj", config_.kv_width(), hidden);
    linear(prefix + "self_attn.o_proj", hidden, config_.q_width());
    if (config_.qkv_bias) {
      vector(prefix + "self_attn.q_proj.bias", config_.q_width());
      vector(prefix + "self_attn.k_proj.bias", config_.kv_width());
      vector(prefix + "self_attn.v_proj.bias", config_.kv_width());
    }
    vector(prefix + "post_attention_layernorm.weight", hidden);
    linear(prefix + "mlp.gate_proj", config_.intermediate_size, hidden);
    linear(prefix + "mlp.up_proj", config_.intermediate_size, hidden);
    linear(prefix + "mlp.down_proj", hidden, config_.intermediate_size);
  }

  void linear(const std::string& name, std::int64_t n, std::int64_t k) {
    const StoredLinear found = stored_linear(checkpoint_, config_, name, n, k);
    for (const StoredTensor* tensor : {found.weight, found.scales, found.minimums}) {
      if (tensor != nullptr) used_.insert(tensor);
    }
  }

  void vector(const std::string& name, std::int64_t n) {
    used_.insert(&stored_vector(checkpoint_, name, n));
  }

  void refuse_others() const {
    for (const std::string& name : checkpoint_.names()) {
      if (used_.contains(&checkpoint_.at(name))) continue;
      // Old files carry the rotary frequencies, which the config determines; files of tied models
      // may carry the output matrix a second time.
      if (name.ends_with(".rotary_emb.inv_freq")) continue;
      if (config_.tie_word_embeddings && name.starts_with("lm_head.")) continue;
      // Of activations in fp8, which stay floats here.
      if (config_.fp8_quantized && name.ends_with(".input_scale")) continue;
      throw ConfigError("{}: tensor \"{}\" has no place in the model that config.json describes",
                        checkpoint_.path().string(), name);
    }
  }

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  std::set<const StoredTensor*> used_;
};

}  // namespace

std::string_view linear_format_name(LinearFormat format) {
  switch (format) {
    case LinearFormat::kF32:
      return "fp32";
    case LinearFormat::kF16:
      return "fp16";
    case LinearFormat::kBF16:
      return "bf16";
    case LinearFormat::kFp8:
      return "fp8";
    case LinearFormat::kInt8:
      return "int8";
    case LinearFormat::kInt4:
      return "int4";
  }
  throw FatalError("a linear format without a name: {}", static_cast<int>(format));
}

StoredLinear stored_linear(const Checkpoint& checkpoint, const ModelConfig& config,
                           std::string_view name_view, std::int64_t n, std::int64_t k) {
  const std::string name(name_view);
  const bool quantized = checkpoint.find(name + ".qweight") != nullptr;
  if (quantized && checkpoint.find(name + ".weight") != nullptr) {
    throw ConfigError("{}: tensors \"{}.weight\" and \"{}.qweight\" are both there",
                      checkpoint.path().string(), name, name);
  }
  if (quantized && !config.paceline_quantized) {
    throw ConfigError(
        "{}: tensor \"{}.qweight\" is there, but config.json has no "
        "quantization_config with quant_method \"paceline\"",
        checkpoint.path().string(), name);
  }
  if (quantized) return quantized_linear(checkpoint, name, n, k);
  const StoredTensor* stored = checkpoint.find(name + ".weight");
  if (stored != nullptr && stored->type == StoredType::kF8E4M3) {
    return fp8_linear(checkpoint, config, name, {n, k});
  }
  const StoredTensor& weight = float_tensor(checkpoint, name + ".weight", {n, k});
  return {.format = float_format(weight.type), .weight = &weight};
}

const StoredTensor& stored_vector(const Checkpoint& checkpoint, std::string_view name,
                                  std::int64_t n) {
  return float_tensor(checkpoint, name, {n});
}

void check_checkpoint(const Checkpoint& checkpoint, const ModelConfig& config) {
  LayoutCheck(checkpoint, config).run();
}

}  // namespace paceline::runtime
