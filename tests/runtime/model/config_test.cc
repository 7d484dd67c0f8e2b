#include "runtime/model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/core/error.h"
#include "tests/temporary_directory.h"

namespace paceline::runtime {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// SmolLM2-135M's, without what does not matter.
Json smollm() {
  return parse_json(R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 49152,
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-05, "rope_theta": 100000, "rope_scaling": null, "hidden_act": "silu",
    "attention_bias": false, "mlp_bias": false, "tie_word_embeddings": true,
    "eos_token_id": 2, "torch_dtype": "bfloat16", "use_cache": true})",
                    "config.json");
}

Json with(std::string_view changes, Json base = smollm()) {
  base.update(parse_json(changes, "changes"));
  return base;
}

ModelConfig parse(const Json& json) { return parse_model_config(json, nullptr, "config.json"); }

std::string refusal_of(const Json& json) {
  try {
    parse(json);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "accepted";
}

std::string refusal(std::string_view changes) { return refusal_of(with(changes)); }

TEST(ModelConfig, ReadsALlama) {
  const ModelConfig config = parse(smollm());
  EXPECT_EQ(config.type, ModelType::kLlama);
  EXPECT_EQ(config.vocab_size, 49152);
  EXPECT_EQ(config.num_layers, 30);
  EXPECT_EQ(config.num_heads, 9);
  EXPECT_EQ(config.num_kv_heads, 3);
  EXPECT_EQ(config.head_dim, 64);
  EXPECT_EQ(config.q_width(), 576);
  EXPECT_EQ(config.kv_width(), 192);
  EXPECT_EQ(config.max_positions, 8192);
  EXPECT_EQ(config.rms_norm_eps, 1e-5);
  EXPECT_EQ(config.rope, RopeConfig{.theta = 100000.0});
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_FALSE(config.qkv_bias);
  EXPECT_FALSE(config.paceline_quantized);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(2));
}

TEST(ModelConfig, DefaultsAreThoseOfTheArchitecture) {
  Json json = smollm();
  for (const char* key :
       {"architectures", "num_key_value_heads", "rope_theta", "rope_scaling", "hidden_act",
        "attention_bias", "mlp_bias", "tie_word_embeddings", "eos_token_id", "rms_norm_eps"}) {
    json.erase(key);
  }
  const ModelConfig config = parse(json);
  EXPECT_EQ(config.num_kv_heads, 9);
  EXPECT_EQ(config.rope.theta, 10000.0);
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_THAT(config.eos_token_ids, IsEmpty());
}

TEST(ModelConfig, HeadsMayBeWiderThanTheirShareOfTheHiddenSize) {
  const ModelConfig config = parse(with(R"({"head_dim": 128})"));
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_EQ(config.q_width(), 1152);
}

TEST(ModelConfig, SizesAreBoundedAndConsistent) {
  EXPECT_THAT(refusal(R"({"vocab_size": 0})"), HasSubstr("config.json: \"vocab_size\" is 0"));
  EXPECT_THAT(refusal(R"({"vocab_size": null})"), HasSubstr("\"vocab_size\" is missing"));
  EXPECT_THAT(refusal(R"({"hidden_size": -1})"), HasSubstr("\"hidden_size\" is -1"));
  EXPECT_THAT(refusal(R"({"hidden_size": 576.0})"), HasSubstr("\"hidden_size\" is 576.0"));
  EXPECT_THAT(refusal(R"({"num_hidden_layers": 1e18})"), HasSubstr("num_hidden_layers"));
  EXPECT_THAT(refusal(R"({"num_hidden_layers": 18446744073709551615})"), HasSubstr("1 to 1024"));
  EXPECT_THAT(refusal(R"({"num_key_value_heads": 2})"), HasSubstr("must divide"));
  EXPECT_THAT(refusal(R"({"num_key_value_heads": 18})"), HasSubstr("must divide"));
  EXPECT_THAT(refusal(R"({"hidden_size": 577})"), HasSubstr("must divide hidden_size 577"));
  EXPECT_THAT(refusal(R"({"head_dim": 63})"), HasSubstr("63 wide heads"));
  EXPECT_THAT(refusal(R"({"head_dim": 512})"), HasSubstr("\"head_dim\" is 512"));
  EXPECT_THAT(refusal(R"({"hidden_size": 4608})"), HasSubstr("512 wide heads"));
  EXPECT_THAT(refusal(R"({"rms_norm_eps": 0})"), HasSubstr("rms_norm_eps"));
  EXPECT_THAT(refusal(R"({"rms_norm_eps": "1e-5"})"), HasSubstr("rms_norm_eps"));
  EXPECT_THAT(refusal_of(parse_json("[]", "x")), HasSubstr("config.json: must be a JSON object"));
}

TEST(ModelConfig, OtherArchitecturesAreRefusedByKey) {
  EXPECT_THAT(refusal(R"({"model_type": "gemma2"})"), HasSubstr("\"model_type\" is \"gemma2\""));
  EXPECT_THAT(refusal(R"({"architectures": ["LlamaForSequenceClassification"]})"),
              HasSubstr("\"architectures\" is"));
  EXPECT_THAT(refusal(R"({"hidden_act": "gelu"})"), HasSubstr("\"hidden_act\" is \"gelu\""));
  EXPECT_THAT(refusal(R"({"mlp_bias": true})"), HasSubstr("\"mlp_bias\" is true"));
  EXPECT_THAT(refusal(R"({"attention_bias": true})"), HasSubstr("\"attention_bias\" is true"));
  EXPECT_THAT(refusal(R"({"partial_rotary_factor": 0.5})"), HasSubstr("partial_rotary_factor"));
  EXPECT_THAT(refusal(R"({"rope_interleaved": true})"), HasSubstr("rope_interleaved"));
  EXPECT_THAT(refusal(R"({"layer_types": ["full_attention", "sliding_attention"]})"),
              HasSubstr("layer_types"));
}

constexpr std::string_view kLlama3 =
    R"({"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192})";

TEST(ModelConfig, ReadsRopeScalingInItsOlderForm) {
  const ModelConfig config =
      parse(with(R"({"rope_theta": 500000.0, "rope_scaling": )" + std::string(kLlama3) + "}"));
  const RopeConfig expected{.theta = 500000.0,
                            .scaling = RopeScaling::kLlama3,
                            .factor = 32.0,
                            .low_freq_factor = 1.0,
                            .high_freq_factor = 4.0,
                            .original_max_positions = 8192};
  EXPECT_EQ(config.rope, expected);
  const RopeConfig linear =
      parse(with(R"({"rope_scaling": {"type": "linear", "factor": 2}})")).rope;
  EXPECT_EQ(linear, (RopeConfig{100000.0, RopeScaling::kLinear, 2.0}));
}

TEST(ModelConfig, ReadsRopeParametersAsTransformers5WritesThem) {
  Json json = smollm();
  json.erase("rope_theta");
  json.erase("rope_scaling");
  json["rope_parameters"] = {{"rope_theta", 100000.0}, {"rope_type", "default"}};
  EXPECT_EQ(parse(json).rope, parse(smollm()).rope);
  json["rope_parameters"] = parse_json(kLlama3, "test");
  json["rope_parameters"]["rope_theta"] = 500000.0;
  EXPECT_EQ(parse(json).rope.scaling, RopeScaling::kLlama3);
  EXPECT_EQ(parse(json).rope.theta, 500000.0);
}

TEST(ModelConfig, BothRopeFormsMustAgree) {
  EXPECT_NO_THROW(parse(with(R"({"rope_parameters": {"rope_theta": 100000.0}})")));
  EXPECT_THAT(refusal(R"({"rope_parameters": {"rope_theta": 10000.0}})"),
              HasSubstr("\"rope_theta\" is 100000, but rope_parameters says 10000"));
  EXPECT_THAT(refusal(R"({"rope_scaling": {"type": "linear", "factor": 2},
                          "rope_parameters": {"rope_type": "default"}})"),
              HasSubstr("\"rope_scaling\""));
}

TEST(ModelConfig, OtherRopeScalingsAreRefused) {
  EXPECT_THAT(refusal(R"({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}})"),
              HasSubstr("\"rope_scaling\": \"rope_type\" is \"yarn\""));
  EXPECT_THAT(refusal(R"({"rope_scaling": {"type": "dynamic", "factor": 4.0}})"),
              HasSubstr("\"type\" is \"dynamic\""));
  EXPECT_THAT(refusal(R"({"rope_scaling": {"type": "linear"}})"),
              HasSubstr("\"factor\" is missing"));
  EXPECT_THAT(refusal(R"({"rope_scaling": {"type": "linear", "factor": 2, "beta_fast": 1}})"),
              HasSubstr("\"beta_fast\" is 1"));
  EXPECT_THAT(refusal(R"({"rope_scaling": {"rope_type": "llama3", "factor": 8,
                          "low_freq_factor": 4, "high_freq_factor": 4,
                          "original_max_position_embeddings": 8192}})"),
              HasSubstr("must be below high_freq_factor"));
  EXPECT_THAT(refusal(R"({"rope_parameters": {"full_attention": {"rope_type": "default"}}})"),
              HasSubstr("full_attention"));
}

TEST(ModelConfig, Qwen2HasBiasesAndIgnoresItsUnusedWindow) {
  const ModelConfig config = parse(with(
      R"({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "sliding_window": 4096,
          "use_sliding_window": false, "max_window_layers": 21})"));
  EXPECT_EQ(config.type, ModelType::kQwen2);
  EXPECT_TRUE(config.qkv_bias);
  EXPECT_THAT(refusal(R"({"model_type": "qwen2", "use_sliding_window": true,
                          "sliding_window": 4096})"),
              HasSubstr("\"sliding_window\" is 4096"));
}

TEST(ModelConfig, AWindowThatMattersIsRefused) {
  EXPECT_THAT(refusal(R"({"model_type": "mistral", "sliding_window": 4096})"),
              HasSubstr("\"sliding_window\" is 4096, below max_position_embeddings 8192"));
  EXPECT_NO_THROW(parse(with(R"({"model_type": "mistral", "sliding_window": null})")));
  EXPECT_NO_THROW(parse(with(R"({"model_type": "mistral", "sliding_window": 8192})")));
}

TEST(ModelConfig, KvHeadsMayOnlyBeLeftOutOfALlama) {
  Json json = with(R"({"model_type": "mistral"})");
  json.erase("num_key_value_heads");
  EXPECT_THAT(refusal_of(json), HasSubstr("\"num_key_value_heads\" is missing"));
}

TEST(ModelConfig, QuantizationIsOursOrFp8OrNone) {
  EXPECT_TRUE(parse(with(R"({"quantization_config": {"quant_method": "paceline",
                                                     "group_size": 32}})"))
                  .paceline_quantized);
  EXPECT_THAT(refusal(R"({"quantization_config": {"quant_method": "gptq", "bits": 4}})"),
              HasSubstr("\"quant_method\" is \"gptq\""));
  EXPECT_THAT(refusal(R"({"quantization_config": {"quant_method": "paceline",
                                                  "group_size": 64}})"),
              HasSubstr("\"group_size\" is 64"));
}

TEST(ModelConfig, Fp8HasOneScaleForATensorOrAnOutput) {
  const auto fp8 = [](const std::string& quantization) {
    const std::string text = R"({"quantization_config": )" + quantization + "}";
    return parse(with(text.c_str())).fp8_quantized;
  };
  const auto refused = [](const std::string& quantization) {
    const std::string text = R"({"quantization_config": )" + quantization + "}";
    return refusal(text.c_str());
  };
  EXPECT_TRUE(fp8(R"({"quant_method": "fp8", "activation_scheme": "static",
                      "ignored_layers": ["lm_head"], "weight_block_size": null})"));
  EXPECT_THAT(refused(R"({"quant_method": "fp8", "weight_block_size": [128, 128]})"),
              HasSubstr("\"weight_block_size\" is [128,128], fp8 weights with scales of blocks"));
  EXPECT_THAT(refused(R"({"quant_method": "fp8", "fmt": "e5m2"})"), HasSubstr("\"fmt\""));
  EXPECT_THAT(refused(R"({"quant_method": "fp8", "kv_cache_scheme": "static"})"),
              HasSubstr("\"kv_cache_scheme\""));

  const auto compressed = [](const std::string& weights, const std::string& more = "") {
    return R"({"quant_method": "compressed-tensors", "format": "float-quantized", "ignore":
               ["lm_head"], "config_groups": {"group_0": {"targets": ["Linear"],
               "input_activations": {"dynamic": true, "num_bits": 8, "strategy": "token"},
               "weights": )" +
           weights + "}}" + more + "}";
  };
  EXPECT_TRUE(fp8(
      compressed(R"({"num_bits": 8, "type": "float", "symmetric": true, "strategy": "channel"})")));
  EXPECT_TRUE(fp8(compressed(R"({"num_bits": 8, "type": "float", "strategy": "tensor"})")));
  EXPECT_THAT(refused(compressed(R"({"num_bits": 8, "type": "float", "strategy": "block"})")),
              HasSubstr("\"strategy\" is \"block\", supported are tensor and channel"));
  EXPECT_THAT(refused(compressed(R"({"num_bits": 8, "type": "int", "strategy": "channel"})")),
              HasSubstr("\"type\" is \"int\""));
  EXPECT_THAT(refused(compressed(R"({"num_bits": 4, "type": "float"})")),
              HasSubstr("\"num_bits\""));
  EXPECT_THAT(refused(compressed("{}", R"(, "kv_cache_scheme": {"num_bits": 8})")),
              HasSubstr("\"kv_cache_scheme\""));
  EXPECT_THAT(refused(R"({"quant_method": "compressed-tensors", "format": "pack-quantized"})"),
              HasSubstr("\"format\" is \"pack-quantized\", only \"float-quantized\""));
}

TEST(ModelConfig, EndOfSequenceComesFromGenerationConfigFirst) {
  const auto ids = [](const char* generation) {
    return parse_model_config(smollm(), parse_json(generation, "test"), "config.json")
        .eos_token_ids;
  };
  EXPECT_THAT(ids("null"), ElementsAre(2));
  EXPECT_THAT(ids(R"({"temperature": 0.6})"), ElementsAre(2));
  EXPECT_THAT(ids(R"({"eos_token_id": 7})"), ElementsAre(7));
  EXPECT_THAT(ids(R"({"eos_token_id": [9, 7, 9]})"), ElementsAre(7, 9));
  EXPECT_THROW(ids(R"({"eos_token_id": 49152})"), ConfigError);
  EXPECT_THROW(ids(R"({"eos_token_id": [-1]})"), ConfigError);
  EXPECT_THROW(ids(R"({"eos_token_id": "</s>"})"), ConfigError);
  EXPECT_THROW(ids("[]"), ConfigError);
}

TEST(ModelConfig, ReadsADirectory) {
  const TemporaryDirectory directory;
  EXPECT_THROW(read_model_config(directory.path()), ConfigError);
  directory.write("config.json", smollm().dump());
  EXPECT_THAT(read_model_config(directory.path()).eos_token_ids, ElementsAre(2));
  directory.write("generation_config.json", R"({"eos_token_id": [3]})");
  EXPECT_THAT(read_model_config(directory.path()).eos_token_ids, ElementsAre(3));
}

}  // namespace
}  // namespace paceline::runtime
