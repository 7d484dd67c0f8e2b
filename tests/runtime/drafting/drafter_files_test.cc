#include "runtime/drafting/drafter_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <limits>

#include "kernels/core/error.h"
#include "tests/runtime/drafting/apple_golden.h"
#include "tests/runtime/files/safetensors_text.h"
#include "tests/temporary_directory.h"

namespace paceline::runtime {
namespace {

using ::testing::HasSubstr;
using Ids = std::vector<std::int32_t>;

std::string bytes_of(const std::vector<float>& values) {
  std::string bytes(values.size() * sizeof(float), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

/// A drafter for the small base model: four draftable tokens, no residual block but one.
struct WrittenDrafter {
  OrderedJson config = {{"model_type", "recurrent_drafting_drafter"},
                        {"vocab_size", 96},
                        {"hidden_size", 32},
                        {"exit_dim", 32},
                        {"num_draft_layers", 1},
                        {"rnn", false},
                        {"draft_vocab", {3, 4, 5, 95}}};
  std::vector<TensorToWrite> tensors = {{"input_proj.bias", StoredType::kF32, {32}, {}},
                                        {"input_proj.weight", StoredType::kF32, {32, 64}, {}},
                                        {"lm_head.0.linear.bias", StoredType::kF32, {32}, {}},
                                        {"lm_head.0.linear.weight", StoredType::kF32, {32, 32}, {}},
                                        {"lm_head.1.weight", StoredType::kF32, {4, 32}, {}}};

  WrittenDrafter& without(const std::string& name) {
    std::erase_if(tensors, [&](const TensorToWrite& tensor) { return tensor.name == name; });
    return *this;
  }
};

class DrafterFilesTest : public testing::Test {
 protected:
  DrafterFiles open(const WrittenDrafter& drafter, WeightChoice weights = WeightChoice::kAuto) {
    std::ofstream(directory_.path() / "config.json") << drafter.config.dump();
    std::ofstream(directory_.path() / "model.safetensors", std::ios::binary)
        << safetensors_text(drafter.tensors);
    return DrafterFiles::open(directory_.path(), weights, {"base", config_, checkpoint_});
  }
  std::string refusal(const std::function<void()>& action) {
    try {
      action();
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "nothing was refused";
  }

  TemporaryDirectory directory_;
  ModelConfig config_ = read_model_config(apple_golden_dir() / "base");
  Checkpoint checkpoint_ = Checkpoint::open(apple_golden_dir() / "base");
};

TEST_F(DrafterFilesTest, ReadsApplesFormatAndOurKeys) {
  WrittenDrafter written;
  written.tensors[4].data = bytes_of(std::vector<float>(4 * 32, 0.25f));
  const DrafterFiles files = open(written);
  EXPECT_EQ(files.config().exit_dim, 32);
  EXPECT_EQ(files.config().draft_vocab, (Ids{3, 4, 5, 95}));
  EXPECT_FALSE(files.config().rnn);
  EXPECT_EQ(kernels::to_fp32(files.matrix("lm_head.1", 4, 32)), std::vector<float>(4 * 32, 0.25f));
  EXPECT_EQ(files.vector("input_proj.bias", 32), std::vector<float>(32, 0.0f));
}

TEST_F(DrafterFilesTest, ConvertsToTheFormatAskedFor) {
  using kernels::WeightFormat;
  const WrittenDrafter written;
  const auto format = [&](WeightChoice choice) {
    return open(written, choice).matrix("lm_head.1", 4, 32).format();
  };
  EXPECT_EQ(format(WeightChoice::kAuto), WeightFormat::kFp32);
  EXPECT_EQ(format(WeightChoice::kBf16), WeightFormat::kBf16);
  EXPECT_EQ(format(WeightChoice::kInt8), WeightFormat::kInt8Channel);
  EXPECT_EQ(format(WeightChoice::kInt4), WeightFormat::kInt4Group);
  WrittenDrafter narrow;
  narrow.config["exit_dim"] = 16;
  EXPECT_THAT(refusal([&] { open(narrow, WeightChoice::kInt4); }),
              HasSubstr("16 inputs, expected a multiple of 32"));
}

TEST_F(DrafterFilesTest, ReadsIntegerMatricesThatTheConfigAnnounces) {
  WrittenDrafter written;
  written.without("lm_head.1.weight");
  written.tensors.push_back(
      {"lm_head.1.qweight", StoredType::kI8, {4, 32}, std::string(4 * 32, '\2')});
  written.tensors.push_back(  // fp16 0.5
      {"lm_head.1.scales", StoredType::kF16, {4, 1}, std::string("\0\x38\0\x38\0\x38\0\x38", 8)});
  EXPECT_THAT(refusal([&] { open(written); }), HasSubstr("quantization_config"));
  written.config["quantization_config"] = {{"quant_method", "paceline"}, {"group_size", 32}};
  const kernels::HostMatrix matrix = kernels::read_rows(open(written).matrix("lm_head.1", 4, 32));
  EXPECT_EQ(matrix.format, kernels::WeightFormat::kInt8Group);
  EXPECT_EQ(kernels::to_fp32(matrix), std::vector<float>(4 * 32, 1.0f));
}

TEST_F(DrafterFilesTest, ATiedHeadIsTheModelsOutputRows) {
  WrittenDrafter written;
  written.config["tied_head"] = true;
  const std::vector<float> base =
      kernels::to_fp32(WeightReader(checkpoint_, config_)
                           .rows("lm_head", 96, 32, {0, 96}, kernels::WeightFormat::kFp32));
  std::vector<float> expected;
  for (const std::int32_t token : {3, 4, 5, 95}) {
    expected.insert(expected.end(), base.begin() + token * 32, base.begin() + (token + 1) * 32);
  }
  EXPECT_EQ(kernels::to_fp32(open(written).matrix("lm_head.1", 4, 32)), expected);
  written.without("lm_head.1.weight");
  EXPECT_EQ(kernels::to_fp32(open(written).matrix("lm_head.1", 4, 32)), expected);
}

TEST_F(DrafterFilesTest, RefusesAConfigNamingTheKey) {
  const auto refused = [&](const char* key, const OrderedJson& value) {
    WrittenDrafter written;
    written.config[key] = value;
    return refusal([&] { open(written); });
  };
  EXPECT_THAT(refused("model_type", "llama"), HasSubstr("expected recurrent_drafting_drafter"));
  EXPECT_THAT(refused("vocab_size", "many"), HasSubstr("\"vocab_size\" is \"many\""));
  EXPECT_THAT(refused("num_draft_layers", 0), HasSubstr("\"num_draft_layers\" is 0"));
  EXPECT_THAT(refused("rnn", nullptr), HasSubstr("\"rnn\" is missing"));
  EXPECT_THAT(refused("draft_vocab", {3, -1}), HasSubstr("expected a list of token ids"));
  EXPECT_THAT(refused("draft_vocab", OrderedJson::array()), HasSubstr("list of token ids"));
  EXPECT_THAT(refused("draft_vocab", {4, 3}), HasSubstr("has 3 after 4"));
  EXPECT_THAT(refused("draft_vocab", {96}), HasSubstr("below vocab_size 96"));
}

TEST_F(DrafterFilesTest, RefusesAnotherModelsDrafterNamingBoth) {
  WrittenDrafter written;
  written.config["vocab_size"] = 97;
  EXPECT_THAT(refusal([&] { open(written); }),
              testing::AllOf(HasSubstr(directory_.path().string()), HasSubstr("vocabulary of 97"),
                             HasSubstr("model base has 96")));
}

TEST_F(DrafterFilesTest, RefusesACheckpointThatIsNotWhatTheConfigSays) {
  EXPECT_THAT(refusal([&] { open(WrittenDrafter().without("input_proj.bias")); }),
              HasSubstr("input_proj.bias"));
  WrittenDrafter larger;
  larger.tensors[4].shape = {96, 32};
  EXPECT_THAT(refusal([&] { open(larger); }), HasSubstr("expected F32, F16 or BF16 [4, 32]"));
  WrittenDrafter other;
  other.tensors.push_back({"rnn_w.weight", StoredType::kF32, {32, 32}, {}});
  EXPECT_THAT(refusal([&] { open(other); }),
              HasSubstr("\"rnn_w.weight\" has no place in the drafter"));
}

TEST_F(DrafterFilesTest, RefusesNumbersThatAreNotFinite) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    WrittenDrafter written;
    std::vector<float> matrix(4 * 32), bias(32);
    matrix[40] = bad;
    written.tensors[4].data = bytes_of(matrix);
    EXPECT_THAT(refusal([&] { open(written); }),
                testing::AllOf(HasSubstr("model.safetensors"), HasSubstr("\"lm_head.1.weight\""),
                               HasSubstr("element 40, expected finite")));
    bias[3] = bad;
    written.tensors[2].data = bytes_of(bias);
    EXPECT_THAT(refusal([&] { open(written); }),
                testing::AllOf(HasSubstr("\"lm_head.0.linear.bias\""), HasSubstr("element 3,")));
  }
}

}  // namespace
}  // namespace paceline::runtime
