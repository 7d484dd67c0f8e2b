#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "tests/parallel/rank_threads.h"
#include "tests/runtime/files/safetensors_text.h"
#include "tests/runtime/model/fixture_model.h"
#include "tests/temporary_directory.h"

// Checkpoints whose linears are stored in fp8, beside the same ones converted at load.

namespace paceline::runtime {
namespace {

using ::testing::HasSubstr;
using Ids = std::vector<std::int32_t>;

constexpr const char* kFixture = "llama_bf16";

enum class Scales { kOfOutputs, kOfTensor, kEqual };

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// The fixture with its layers' linears in fp8: as `--weights fp8` converts them, with one scale of
/// 1/512 for each tensor, or with that for each output.
class Fp8Checkpoint {
 public:
  explicit Fp8Checkpoint(Scales scales, const std::function<void(TensorToWrite&)>& change = {}) {
    const Checkpoint stored = Checkpoint::open(fixture_dir(kFixture));
    const ModelConfig config = read_model_config(fixture_dir(kFixture));
    std::vector<TensorToWrite> tensors;
    for (const std::string& name : stored.names()) {
      const StoredTensor& tensor = stored.at(name);
      if (!name.ends_with("_proj.weight")) {
        tensors.push_back({name, tensor.type, tensor.shape, text_of(tensor.bytes)});
        continue;
      }
      const std::string linear = name.substr(0, name.rfind(".weight"));
      const std::int64_t n = tensor.shape[0];
      kernels::MatrixSource source =
          WeightReader(stored, config)
              .rows(linear, n, tensor.shape[1], {0, n}, kernels::WeightFormat::kFp8);
      const kernels::HostMatrix fp8 = kernels::read_rows(source);
      tensors.push_back({name, StoredType::kF8E4M3, tensor.shape, text_of(fp8.values)});
      const float one = 1.0f / 512;
      std::string scale(reinterpret_cast<const char*>(&one), sizeof(one));
      if (scales == Scales::kOfOutputs) scale = text_of(fp8.scales);
      if (scales == Scales::kEqual) {
        for (std::int64_t row = 1; row < n; ++row) scale.append(scale, 0, sizeof(one));
      }
      const bool single = scales == Scales::kOfTensor;
      tensors.push_back({linear + ".weight_scale", StoredType::kF32,
                         single ? std::vector<std::int64_t>{} : std::vector<std::int64_t>{n, 1},
                         scale});
      if (single) tensors.push_back({linear + ".input_scale", StoredType::kF32, {}, scale});
    }
    if (change) {
      for (TensorToWrite& tensor : tensors) change(tensor);
    }
    directory_.write("model.safetensors", safetensors_text(tensors));
    Json json = read_json(fixture_dir(kFixture) / "config.json");
    json["quantization_config"] = {{"quant_method", "fp8"}, {"activation_scheme", "dynamic"}};
    directory_.write("config.json", json.dump());
  }

  std::string path() const { return directory_.path().string(); }

 private:
  TemporaryDirectory directory_;
};

Ids prompt() {
  return read_json(fixture_dir(kFixture) / "fixture.json").at("prompts").at(1).at("ids").get<Ids>();
}

std::vector<float> logits_of(const std::string& name, WeightChoice weights,
                             kernels::Backend& backend) {
  const auto single = parallel::make_single();
  FixtureRank rank(name, {.weights = weights}, backend, *single);
  return sequence_logits(rank, backend, prompt(), 50);
}

TEST(Fp8Model, StoredAndConvertedAreTheSame) {
  const Fp8Checkpoint stored(Scales::kOfOutputs);
  const auto cpu = kernels::make_cpu_backend({.threads = 2});
  const auto reference = kernels::make_reference_backend();
  const std::vector<float> expected = logits_of(kFixture, WeightChoice::kFp8, *reference);
  EXPECT_TRUE(logits_of(kFixture, WeightChoice::kFp8, *cpu) == expected);
  EXPECT_TRUE(logits_of(stored.path(), WeightChoice::kAuto, *reference) == expected);
  EXPECT_TRUE(logits_of(stored.path(), WeightChoice::kAuto, *cpu) == expected);
  EXPECT_TRUE(logits_of(stored.path(), WeightChoice::kFp8, *cpu) == expected);
  EXPECT_FALSE(logits_of(kFixture, WeightChoice::kAuto, *cpu) == expected);
}

TEST(Fp8Model, AScaleMayBeTheWholeTensors) {
  const Fp8Checkpoint one(Scales::kOfTensor), each(Scales::kEqual), others(Scales::kOfOutputs);
  const auto cpu = kernels::make_cpu_backend({});
  const std::vector<float> expected = logits_of(each.path(), WeightChoice::kAuto, *cpu);
  EXPECT_TRUE(logits_of(one.path(), WeightChoice::kAuto, *cpu) == expected);
  EXPECT_FALSE(logits_of(others.path(), WeightChoice::kAuto, *cpu) == expected);
}

TEST(Fp8Model, EveryNumberOfRanksGivesTheSameBits) {
  const Fp8Checkpoint stored(Scales::kOfOutputs);
  const auto single_backend = kernels::make_cpu_backend({});
  const std::vector<float> expected =
      logits_of(stored.path(), WeightChoice::kAuto, *single_backend);
  for (const std::string& name : {stored.path(), std::string(kFixture)}) {
    for (const int ranks : {2, 3, 8}) {
      parallel::run_ranks(ranks, [&](parallel::Communicator& communicator) {
        const auto backend = kernels::make_cpu_backend({});
        FixtureRank rank(name, {.weights = WeightChoice::kFp8}, *backend, communicator);
        EXPECT_TRUE(sequence_logits(rank, *backend, prompt(), 7) == expected) << ranks;
      });
    }
  }
}

TEST(Fp8Model, FormatsAreChosenAndTold) {
  const Fp8Checkpoint stored(Scales::kOfOutputs);
  const Checkpoint checkpoint = Checkpoint::open(stored.path());
  const ModelConfig config = read_model_config(stored.path());
  const WeightFormats kept = choose_formats(checkpoint, config, WeightChoice::kAuto);
  EXPECT_EQ(kept.linear, kernels::WeightFormat::kFp8);
  EXPECT_EQ(kept.vocabulary, kernels::WeightFormat::kBf16);
  EXPECT_EQ(kept.conversion, "");
  EXPECT_EQ(choose_formats(checkpoint, config, WeightChoice::kFp8).conversion, "");
  EXPECT_THAT(choose_formats(checkpoint, config, WeightChoice::kInt8).conversion,
              HasSubstr("fp8 to int8"));
  EXPECT_EQ(parse_weight_choice("fp8"), WeightChoice::kFp8);
}

TEST(Fp8Model, RefusesNumbersThatAreNotFinite) {
  const auto refusal = [](const char* of, std::size_t at, char byte) {
    const Fp8Checkpoint stored(Scales::kOfOutputs, [&](TensorToWrite& tensor) {
      if (tensor.name.ends_with(of)) tensor.data[at] = byte;
    });
    const auto cpu = kernels::make_cpu_backend({});
    try {
      logits_of(stored.path(), WeightChoice::kAuto, *cpu);
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  for (const char nan : {'\x7f', '\xff'}) {
    EXPECT_THAT(refusal("down_proj.weight", 5, nan),
                HasSubstr("mlp.down_proj.weight\" holds NaN, expected finite numbers"));
  }
  EXPECT_THAT(refusal("q_proj.weight_scale", 3, '\x7f'), HasSubstr("q_proj.weight_scale\" holds"));
}

}  // namespace
}  // namespace paceline::runtime
