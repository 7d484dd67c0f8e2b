#include "runtime/model/checkpoint_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "kernels/core/error.h"
#include "tests/runtime/files/safetensors_text.h"
#include "tests/temporary_directory.h"

namespace paceline::runtime {
namespace {

using ::testing::HasSubstr;

/// One layer, 64 wide, 2 query heads on 1 KV head of 16, 96 feed-forward columns, 10 tokens.
ModelConfig tiny_config() {
  ModelConfig config;
  config.vocab_size = 10;
  config.hidden_size = 64;
  config.intermediate_size = 96;
  config.num_layers = 1;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 16;
  config.max_positions = 32;
  return config;
}

/// A checkpoint by name, so that a test changes one tensor and writes it again.
struct Tensors {
  std::map<std::string, TensorToWrite> by_name;

  void set(const std::string& name, StoredType type, std::vector<std::int64_t> shape) {
    by_name[name] = {name, type, std::move(shape), {}};
  }

  std::string refusal(const ModelConfig& config) const {
    const TemporaryDirectory directory;
    std::vector<TensorToWrite> list;
    for (const auto& [name, tensor] : by_name) list.push_back(tensor);
    directory.write("model.safetensors", safetensors_text(list));
    try {
      check_checkpoint(Checkpoint::open(directory.path()), config);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "accepted";
  }
};

constexpr const char* kLayer = "model.layers.0.";

Tensors tiny_tensors() {
  Tensors tensors;
  const auto add = [&](const std::string& name, std::vector<std::int64_t> shape) {
    tensors.set(name, StoredType::kF32, std::move(shape));
  };
  const std::string layer = kLayer;
  add("model.embed_tokens.weight", {10, 64});
  add(layer + "input_layernorm.weight", {64});
  add(layer + "self_attn.q_proj.weight", {32, 64});
  add(layer + "self_attn.k_proj.weight", {16, 64});
  add(layer + "self_attn.v_proj.weight", {16, 64});
  add(layer + "self_attn.o_proj.weight", {64, 32});
  add(layer + "post_attention_layernorm.weight", {64});
  add(layer + "mlp.gate_proj.weight", {96, 64});
  add(layer + "mlp.up_proj.weight", {96, 64});
  add(layer + "mlp.down_proj.weight", {64, 96});
  add("model.norm.weight", {64});
  add("lm_head.weight", {10, 64});
  return tensors;
}

TEST(CheckpointLayout, AcceptsTheModelItself) {
  EXPECT_EQ(tiny_tensors().refusal(tiny_config()), "accepted");
}

TEST(CheckpointLayout, FloatFormatsMayMix) {
  Tensors tensors = tiny_tensors();
  tensors.by_name["model.norm.weight"].type = StoredType::kF16;
  tensors.by_name["lm_head.weight"].type = StoredType::kBF16;
  EXPECT_EQ(tensors.refusal(tiny_config()), "accepted");
  tensors.by_name["lm_head.weight"].type = StoredType::kF64;
  EXPECT_THAT(tensors.refusal(tiny_config()),
              HasSubstr("\"lm_head.weight\" is F64 [10, 64], expected F32, F16 or BF16 [10, 64]"));
}

TEST(CheckpointLayout, NamesTheTensorThatIsMissing) {
  for (const auto& [name, tensor] : tiny_tensors().by_name) {
    Tensors tensors = tiny_tensors();
    tensors.by_name.erase(name);
    EXPECT_THAT(tensors.refusal(tiny_config()), HasSubstr("\"" + name + "\" is missing"));
  }
}

TEST(CheckpointLayout, NamesTheShapeThatIsWrong) {
  Tensors tensors = tiny_tensors();
  tensors.by_name[std::string(kLayer) + "self_attn.o_proj.weight"].shape = {32, 64};
  EXPECT_THAT(tensors.refusal(tiny_config()),
              HasSubstr("\"model.layers.0.self_attn.o_proj.weight\" is F32 [32, 64], expected F32, "
                        "F16 or BF16 [64, 32]"));
}

TEST(CheckpointLayout, ATiedOutputMatrixMayBeLeftOutOrRepeated) {
  ModelConfig config = tiny_config();
  config.tie_word_embeddings = true;
  Tensors tensors = tiny_tensors();
  EXPECT_EQ(tensors.refusal(config), "accepted");
  tensors.by_name.erase("lm_head.weight");
  EXPECT_EQ(tensors.refusal(config), "accepted");
}

TEST(CheckpointLayout, BiasesAreThereExactlyWhenTheConfigSaysSo) {
  ModelConfig config = tiny_config();
  config.qkv_bias = true;
  Tensors tensors = tiny_tensors();
  const std::string attention = std::string(kLayer) + "self_attn.";
  EXPECT_THAT(tensors.refusal(config), HasSubstr("q_proj.bias\" is missing"));
  tensors.set(attention + "q_proj.bias", StoredType::kF32, {32});
  tensors.set(attention + "k_proj.bias", StoredType::kF32, {16});
  tensors.set(attention + "v_proj.bias", StoredType::kF32, {16});
  EXPECT_EQ(tensors.refusal(config), "accepted");
  // Ignoring a bias would change every answer.
  EXPECT_THAT(tensors.refusal(tiny_config()), HasSubstr("k_proj.bias\" has no place"));
}

TEST(CheckpointLayout, RotaryFrequenciesOfOldFilesAreIgnored) {
  Tensors tensors = tiny_tensors();
  tensors.set(std::string(kLayer) + "self_attn.rotary_emb.inv_freq", StoredType::kF32, {8});
  EXPECT_EQ(tensors.refusal(tiny_config()), "accepted");
}

class Fp8Layout : public ::testing::Test {
 protected:
  Fp8Layout() {
    config_.fp8_quantized = true;
    tensors_.by_name[up_ + ".weight"].type = StoredType::kF8E4M3;
    tensors_.set(up_ + ".weight_scale", StoredType::kBF16, {96, 1});
  }

  const std::string up_ = std::string(kLayer) + "mlp.up_proj";
  ModelConfig config_ = tiny_config();
  Tensors tensors_ = tiny_tensors();
};

TEST_F(Fp8Layout, MayHaveOneScaleOrOneForEachOutput) {
  using Shape = std::vector<std::int64_t>;
  for (const Shape& shape : {Shape{96, 1}, Shape{96}, Shape{1}, Shape{}}) {
    tensors_.set(up_ + ".weight_scale", StoredType::kF32, shape);
    EXPECT_EQ(tensors_.refusal(config_), "accepted");
  }
  tensors_.set(up_ + ".weight_scale", StoredType::kF32, {1, 96});
  EXPECT_THAT(tensors_.refusal(config_),
              HasSubstr("up_proj.weight_scale\" is F32 [1, 96], expected one number, F32, F16 or "
                        "BF16, or [96, 1]"));
  tensors_.by_name.erase(up_ + ".weight_scale");
  EXPECT_THAT(tensors_.refusal(config_), HasSubstr("up_proj.weight_scale\" is missing"));
}

TEST_F(Fp8Layout, NeedsToBeAnnounced) {
  EXPECT_THAT(tensors_.refusal(tiny_config()), HasSubstr("quantization_config"));
}

TEST_F(Fp8Layout, ScalesOfActivationsAreNotNeeded) {
  tensors_.set(up_ + ".input_scale", StoredType::kF32, {});
  EXPECT_EQ(tensors_.refusal(config_), "accepted");
}

TEST_F(Fp8Layout, ScalesOfBlocksAreRefused) {
  tensors_.set(up_ + ".weight_scale_inv", StoredType::kF32, {1, 1});
  EXPECT_THAT(tensors_.refusal(config_), HasSubstr("up_proj.weight_scale_inv\" holds fp8 scales of "
                                                   "blocks, which are not supported"));
}

class QuantizedLayout : public ::testing::Test {
 protected:
  QuantizedLayout() {
    config_.paceline_quantized = true;
    tensors_.by_name.erase(up_ + ".weight");
    tensors_.set(up_ + ".qweight", StoredType::kU8, {96, 32});
    tensors_.set(up_ + ".scales", StoredType::kF16, {96, 2});
    tensors_.set(up_ + ".minimums", StoredType::kF16, {96, 2});
    tensors_.by_name.erase("model.embed_tokens.weight");
    tensors_.set("model.embed_tokens.qweight", StoredType::kI8, {10, 64});
    tensors_.set("model.embed_tokens.scales", StoredType::kF16, {10, 2});
  }

  const std::string up_ = std::string(kLayer) + "mlp.up_proj";
  ModelConfig config_ = tiny_config();
  Tensors tensors_ = tiny_tensors();
};

TEST_F(QuantizedLayout, Int4Int8AndFloatsMayMix) {
  EXPECT_EQ(tensors_.refusal(config_), "accepted");
}

TEST_F(QuantizedLayout, NeedsToBeAnnounced) {
  EXPECT_THAT(tensors_.refusal(tiny_config()), HasSubstr("quantization_config"));
}

TEST_F(QuantizedLayout, EveryPartHasItsShape) {
  tensors_.by_name[up_ + ".minimums"].shape = {96, 1};
  EXPECT_THAT(tensors_.refusal(config_),
              HasSubstr("up_proj.minimums\" is F16 [96, 1], expected F16 [96, 2]"));
  tensors_.by_name.erase(up_ + ".minimums");
  EXPECT_THAT(tensors_.refusal(config_), HasSubstr("up_proj.minimums\" is missing"));
}

TEST_F(QuantizedLayout, Int8HasNoMinimums) {
  tensors_.set("model.embed_tokens.minimums", StoredType::kF16, {10, 2});
  EXPECT_THAT(tensors_.refusal(config_), HasSubstr("embed_tokens.minimums\" has no place"));
}

TEST_F(QuantizedLayout, OneLayoutForEachLinear) {
  tensors_.set(up_ + ".weight", StoredType::kF32, {96, 64});
  EXPECT_THAT(tensors_.refusal(config_), HasSubstr("are both there"));
}

TEST_F(QuantizedLayout, RowsAreWholeGroups) {
  config_.num_heads = 1;  // o_proj: rows of 16
  tensors_.by_name[std::string(kLayer) + "self_attn.q_proj.weight"].shape = {16, 64};
  tensors_.by_name.erase(std::string(kLayer) + "self_attn.o_proj.weight");
  tensors_.set(std::string(kLayer) + "self_attn.o_proj.qweight", StoredType::kI8, {64, 16});
  EXPECT_THAT(tensors_.refusal(config_), HasSubstr("not whole groups of 32"));
}

}  // namespace
}  // namespace paceline::runtime
