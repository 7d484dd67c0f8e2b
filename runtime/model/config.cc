#include "runtime/model/config.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "kernels/core/error.h"
#include "runtime/model/config_fields.h"
#include "runtime/model/quantization.h"

namespace paceline::runtime {
namespace {

constexpr std::int64_t kMaxVocab = std::int64_t{1} << 22;
constexpr std::int64_t kMaxWidth = std::int64_t{1} << 20;
constexpr std::int64_t kMaxLayers = 1024;
constexpr std::int64_t kMaxHeads = 4096;
constexpr std::int64_t kMaxHeadDim = 256;
constexpr std::int64_t kMaxPositions = std::int64_t{1} << 26;

ModelType model_type(const ConfigFields& fields) {
  const std::string name = fields.text("model_type");
  if (name == "llama") return ModelType::kLlama;
  if (name == "mistral") return ModelType::kMistral;
  if (name == "qwen2") return ModelType::kQwen2;
  fields.refuse("model_type", "supported are llama, mistral and qwen2");
}

void check_architecture(const ConfigFields& fields) {
  const Json* names = fields.find("architectures");
  if (names == nullptr) return;
  const bool known =
      names->is_array() && names->size() == 1 &&
      (names->front() == "LlamaForCausalLM" || names->front() == "MistralForCausalLM" ||
       names->front() == "Qwen2ForCausalLM");
  if (!known) {
    fields.refuse("architectures",
                  "supported are LlamaForCausalLM, MistralForCausalLM and Qwen2ForCausalLM");
  }
}

/// The scaling part of a `rope_scaling` or `rope_parameters` object.
void read_rope_scaling(const ConfigFields& fields, RopeConfig& rope) {
  // "type" is the older name of "rope_type"; some files carry both.
  const std::string_view key = fields.find("rope_type") ? "rope_type" : "type";
  if (fields.find("rope_type") && fields.find("type") &&
      *fields.find("rope_type") != *fields.find("type")) {
    fields.refuse("type", "rope_type differs");
  }
  fields.must_be("partial_rotary_factor", 1.0);
  const std::string type = fields.find(key) ? fields.text(key) : "default";
  if (type == "default") {
    fields.allow_only({"rope_type", "type", "rope_theta", "partial_rotary_factor"});
  } else if (type == "linear") {
    fields.allow_only({"rope_type", "type", "rope_theta", "partial_rotary_factor", "factor"});
    rope.scaling = RopeScaling::kLinear;
    rope.factor = fields.positive("factor");
  } else if (type == "llama3") {
    fields.allow_only({"rope_type", "type", "rope_theta", "partial_rotary_factor", "factor",
                       "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"});
    rope.scaling = RopeScaling::kLlama3;
    rope.factor = fields.positive("factor");
    rope.low_freq_factor = fields.positive("low_freq_factor");
    rope.high_freq_factor = fields.positive("high_freq_factor");
    rope.original_max_positions = fields.size("original_max_position_embeddings", kMaxPositions);
    if (rope.low_freq_factor >= rope.high_freq_factor) {
      fields.refuse("low_freq_factor", "it must be below high_freq_factor");
    }
  } else {
    fields.refuse(key, "supported are default, linear and llama3");
  }
}

/// Files carry `rope_theta` and `rope_scaling` side by side, or, since transformers 5, one
/// `rope_parameters`. A file with both must say the same in both.
RopeConfig rope_config(const ConfigFields& fields) {
  fields.must_be("rope_interleaved", false);
  fields.must_be("partial_rotary_factor", 1.0);
  std::optional<RopeConfig> older;
  if (fields.find("rope_theta") || fields.find("rope_scaling")) {
    older.emplace();
    older->theta = fields.positive_or("rope_theta", older->theta);
    if (fields.find("rope_scaling")) {
      const ConfigFields scaling = fields.inside("rope_scaling");
      older->theta = scaling.positive_or("rope_theta", older->theta);
      read_rope_scaling(scaling, *older);
    }
  }
  if (!fields.find("rope_parameters")) return older.value_or(RopeConfig{});
  const ConfigFields parameters = fields.inside("rope_parameters");
  RopeConfig rope;
  rope.theta = parameters.positive_or("rope_theta", fields.positive_or("rope_theta", rope.theta));
  read_rope_scaling(parameters, rope);
  if (older && fields.find("rope_theta") && older->theta != rope.theta) {
    fields.refuse("rope_theta", "but rope_parameters says {}", rope.theta);
  }
  if (older && fields.find("rope_scaling") && *older != rope) {
    fields.refuse("rope_scaling", "but rope_parameters differs from it");
  }
  return rope;
}

/// Attention must see the whole context. A window that no position reaches past is none.
void check_window(const ConfigFields& fields, const ModelConfig& config) {
  const Json* layers = fields.find("layer_types");
  if (layers != nullptr) {
    const bool full = layers->is_array() &&
                      std::all_of(layers->begin(), layers->end(),
                                  [](const Json& type) { return type == "full_attention"; });
    if (!full) fields.refuse("layer_types", "only full_attention is supported");
  }
  // Llama has no window; Qwen2's counts only if use_sliding_window says so.
  if (config.type == ModelType::kLlama) return;
  if (config.type == ModelType::kQwen2 && !fields.boolean_or("use_sliding_window", false)) return;
  const auto window = fields.optional_size("sliding_window", kMaxPositions);
  if (window && *window < config.max_positions) {
    fields.refuse("sliding_window",
                  "below max_position_embeddings {}: sliding windows are not supported. With "
                  "max_position_embeddings {} and sliding_window null the answers are the same, in "
                  "a context of that length",
                  config.max_positions, *window);
  }
}

/// `eos_token_id`: one id or a list of them.
std::vector<std::int32_t> eos_token_ids(const ConfigFields& fields, std::int64_t vocab_size) {
  const Json* value = fields.find("eos_token_id");
  if (value == nullptr) return {};
  const Json list = value->is_array() ? *value : Json::array({*value});
  std::vector<std::int32_t> ids;
  for (const Json& id : list) {
    if (!id.is_number_unsigned() ||
        id.get<std::uint64_t>() >= static_cast<std::uint64_t>(vocab_size)) {
      fields.refuse("eos_token_id", "expected token ids below vocab_size {}", vocab_size);
    }
    ids.push_back(id.get<std::int32_t>());
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

void read_sizes(const ConfigFields& fields, ModelConfig& config) {
  config.vocab_size = fields.size("vocab_size", kMaxVocab);
  config.hidden_size = fields.size("hidden_size", kMaxWidth);
  config.intermediate_size = fields.size("intermediate_size", kMaxWidth);
  config.num_layers = fields.size("num_hidden_layers", kMaxLayers);
  config.num_heads = fields.size("num_attention_heads", kMaxHeads);
  config.max_positions = fields.size("max_position_embeddings", kMaxPositions);
  // Only Llama's files may leave it out: there the architecture's default is one per query head.
  const auto kv_heads = fields.optional_size("num_key_value_heads", kMaxHeads);
  if (!kv_heads && config.type != ModelType::kLlama) {
    fields.refuse("num_key_value_heads", "this model_type needs it");
  }
  config.num_kv_heads = kv_heads.value_or(config.num_heads);
  if (config.num_heads % config.num_kv_heads != 0) {
    fields.refuse("num_key_value_heads", "it must divide num_attention_heads {}", config.num_heads);
  }
  const auto head_dim = fields.optional_size("head_dim", kMaxHeadDim);
  if (!head_dim && config.hidden_size % config.num_heads != 0) {
    fields.refuse("num_attention_heads", "it must divide hidden_size {} where head_dim is missing",
                  config.hidden_size);
  }
  config.head_dim = head_dim.value_or(config.hidden_size / config.num_heads);
  if (config.head_dim % 2 != 0 || config.head_dim > kMaxHeadDim) {
    fields.refuse("head_dim", "{} wide heads: expected an even width of at most {}",
                  config.head_dim, kMaxHeadDim);
  }
  config.rms_norm_eps = fields.positive_or("rms_norm_eps", config.rms_norm_eps);
  if (config.rms_norm_eps > 1.0) fields.refuse("rms_norm_eps", "expected at most 1");
}

}  // namespace

bool paceline_quantized(const Json& config, std::string_view source) {
  const ConfigFields fields(config, std::string(source));
  const StoredQuantization stored = stored_quantization(fields);
  if (stored == StoredQuantization::kFp8) {
    fields.inside("quantization_config")
        .refuse("quant_method", "only \"paceline\" is supported here");
  }
  return stored == StoredQuantization::kPaceline;
}

ModelConfig parse_model_config(const Json& config_json, const Json& generation_config,
                               std::string_view source) {
  const ConfigFields fields(config_json, std::string(source));
  ModelConfig config;
  config.type = model_type(fields);
  check_architecture(fields);
  read_sizes(fields, config);
  config.rope = rope_config(fields);
  check_window(fields, config);
  fields.must_be("hidden_act", "silu");
  fields.must_be("mlp_bias", false);
  if (config.type == ModelType::kQwen2) {
    config.qkv_bias = true;  // the architecture's, whatever attention_bias says
  } else if (fields.boolean_or("attention_bias", false)) {
    fields.refuse("attention_bias", "a bias on every attention projection is not supported");
  }
  config.tie_word_embeddings = fields.boolean_or("tie_word_embeddings", false);
  const StoredQuantization stored = stored_quantization(fields);
  config.paceline_quantized = stored == StoredQuantization::kPaceline;
  config.fp8_quantized = stored == StoredQuantization::kFp8;

  config.eos_token_ids = eos_token_ids(fields, config.vocab_size);
  if (!generation_config.is_null()) {
    const ConfigFields generation(generation_config, "generation_config.json");
    if (generation.find("eos_token_id")) {
      config.eos_token_ids = eos_token_ids(generation, config.vocab_size);
    }
  }
  return config;
}

ModelConfig read_model_config(const std::filesystem::path& directory) {
  const JsonLimits limits{.max_bytes = std::size_t{1} << 20, .max_depth = 16};
  const auto path = directory / "config.json";
  const Json config = read_json(path, limits);
  Json generation_config;
  const auto generation_path = directory / "generation_config.json";
  std::error_code failure;
  if (std::filesystem::exists(generation_path, failure)) {
    generation_config = read_json(generation_path, limits);
  }
  return parse_model_config(config, generation_config, path.string());
}

}  // namespace paceline::runtime
