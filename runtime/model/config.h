#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/files/json.h"

namespace paceline::runtime {

/// The architectures that the one Llama-family model covers.
enum class ModelType { kLlama, kMistral, kQwen2 };

/// How rotary frequencies are stretched for contexts longer than the model was trained on first.
enum class RopeScaling {
  kNone,
  kLinear,  ///< every frequency divided by `factor`
  kLlama3,  ///< low frequencies divided by `factor`, high ones kept, a ramp between
};

/// Rotary position embedding. Pair i of a head turns by position * theta^(-2 i / head_dim).
struct RopeConfig {
  double theta = 10000.0;
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;                      ///< kLinear and kLlama3
  double low_freq_factor = 1.0;             ///< kLlama3
  double high_freq_factor = 4.0;            ///< kLlama3, above low_freq_factor
  std::int64_t original_max_positions = 0;  ///< kLlama3: the context before scaling

  bool operator==(const RopeConfig&) const = default;
};

/// What the model needs to know from `config.json` and `generation_config.json`. Everything in it
/// is checked: sizes are positive, bounded and divide each other as the architecture needs.
struct ModelConfig {
  ModelType type = ModelType::kLlama;
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t num_layers = 0;
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;  ///< divides num_heads
  std::int64_t head_dim = 0;      ///< even, at most 256
  std::int64_t max_positions = 0;
  double rms_norm_eps = 1e-6;
  RopeConfig rope;
  bool tie_word_embeddings = false;
  bool qkv_bias = false;                    ///< biases on the q, k and v projections (Qwen2)
  bool paceline_quantized = false;          ///< linears may be stored as integers in groups of 32
  bool fp8_quantized = false;               ///< linears may be stored as E4M3 with weight_scale
  std::vector<std::int32_t> eos_token_ids;  ///< sorted; empty: only limits and stop strings end

  std::int64_t q_width() const { return num_heads * head_dim; }
  std::int64_t kv_width() const { return num_kv_heads * head_dim; }
};

/// Weights per quantization group along K, in the files and in the kernels.
inline constexpr std::int64_t kQuantizationGroup = 32;

/// Whether a parsed `config.json` announces linears in our integer layouts (`quantization_config`).
/// Throws ConfigError naming the key for any other quantization.
bool paceline_quantized(const Json& config, std::string_view source);

/// Reads a parsed `config.json`. `generation_config` is the parsed `generation_config.json`, or
/// null if there is none; only its `eos_token_id` (an id or a list) counts, before config.json's:
/// sampling defaults are the command line's. `source` names config.json in messages.
/// Throws ConfigError naming the key for everything that would change the model's answers and is
/// not supported.
ModelConfig parse_model_config(const Json& config, const Json& generation_config,
                               std::string_view source);

/// Reads `config.json` and, if it is there, `generation_config.json` of a model directory.
/// Throws ConfigError.
ModelConfig read_model_config(const std::filesystem::path& directory);

}  // namespace paceline::runtime
