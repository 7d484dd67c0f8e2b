// config.json from a stranger and, behind a zero byte, generation_config.json: refused, or a model
// whose sizes are consistent.

#include <cstdint>
#include <string_view>

#include "kernels/core/error.h"
#include "runtime/model/config.h"

using paceline::check;
using paceline::ConfigError;
using paceline::runtime::Json;
using paceline::runtime::ModelConfig;
using paceline::runtime::parse_json;
using paceline::runtime::parse_model_config;

namespace {

void check_consistent(const ModelConfig& config) {
  check(config.vocab_size > 0 && config.hidden_size > 0 && config.intermediate_size > 0, "sizes");
  check(config.num_layers > 0 && config.max_positions > 0, "layers and positions");
  check(config.num_kv_heads > 0 && config.num_heads % config.num_kv_heads == 0, "heads");
  check(config.head_dim > 0 && config.head_dim % 2 == 0 && config.head_dim <= 256, "head_dim");
  check(config.rms_norm_eps > 0.0 && config.rope.theta > 0.0 && config.rope.factor > 0.0, "floats");
  for (const std::int32_t id : config.eos_token_ids) {
    check(id >= 0 && id < config.vocab_size, "eos_token_id {}", id);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::size_t end = std::min(text.find('\0'), text.size());
  try {
    const Json config = parse_json(text.substr(0, end), "config.json");
    const Json generation =
        end < text.size() ? parse_json(text.substr(end + 1), "generation_config.json") : Json();
    check_consistent(parse_model_config(config, generation, "config.json"));
  } catch (const ConfigError&) {
  }
  return 0;
}
