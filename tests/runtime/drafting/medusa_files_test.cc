#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <limits>

#include "kernels/core/error.h"
#include "runtime/drafting/drafter_files.h"
#include "tests/runtime/drafting/apple_golden.h"
#include "tests/runtime/files/safetensors_text.h"
#include "tests/temporary_directory.h"

// Medusa heads as FasterDecoding's code writes them, and with our own keys.

namespace paceline::runtime {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Ids = std::vector<std::int32_t>;

std::string bytes_of(const std::vector<float>& values) {
  std::string bytes(values.size() * sizeof(float), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

/// Two heads of one block for the small base model, with an old config that says no size.
struct WrittenHeads {
  OrderedJson config = {{"medusa_num_heads", 2},
                        {"medusa_num_layers", 1},
                        {"base_model_name_or_path", "lmsys/small"},
                        {"transformers_version", "4.31.0"}};
  std::vector<TensorToWrite> tensors = {{"0.0.linear.weight", StoredType::kF32, {32, 32}, {}},
                                        {"0.0.linear.bias", StoredType::kF32, {32}, {}},
                                        {"0.1.weight", StoredType::kF32, {96, 32}, {}},
                                        {"1.0.linear.weight", StoredType::kF32, {32, 32}, {}},
                                        {"1.0.linear.bias", StoredType::kF32, {32}, {}},
                                        {"1.1.weight", StoredType::kF32, {96, 32}, {}}};
  std::string file = "medusa_lm_head.safetensors";

  TensorToWrite& tensor(const std::string& name) {
    return *std::find_if(tensors.begin(), tensors.end(),
                         [&](const TensorToWrite& tensor) { return tensor.name == name; });
  }
  WrittenHeads& with_draft_vocab(const Ids& ids) {
    config["draft_vocab"] = ids;
    config["vocab_size"] = 96;
    for (const char* name : {"0.1.weight", "1.1.weight"}) {
      tensor(name).shape = {std::ssize(ids), 32};
    }
    return *this;
  }
};

class MedusaFilesTest : public testing::Test {
 protected:
  DrafterFiles open(const WrittenHeads& heads, WeightChoice weights = WeightChoice::kAuto) {
    std::filesystem::remove_all(directory());
    std::filesystem::create_directory(directory());
    std::ofstream(directory() / "config.json") << heads.config.dump();
    std::ofstream(directory() / heads.file, std::ios::binary) << safetensors_text(heads.tensors);
    return DrafterFiles::open(directory(), weights, {"base", config_, checkpoint_});
  }
  std::string refusal(const std::function<void()>& action) {
    try {
      action();
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "nothing was refused";
  }
  std::filesystem::path directory() const { return temporary_.path() / "heads"; }

 private:
  TemporaryDirectory temporary_;
  ModelConfig config_ = read_model_config(apple_golden_dir() / "base");
  Checkpoint checkpoint_ = Checkpoint::open(apple_golden_dir() / "base");
};

TEST_F(MedusaFilesTest, ReadsMedusasFormat) {
  WrittenHeads written;
  written.tensor("1.1.weight").data = bytes_of(std::vector<float>(96 * 32, 0.25f));
  written.tensor("1.0.linear.bias").data = bytes_of(std::vector<float>(32, 2.0f));
  const DrafterFiles files = open(written);
  EXPECT_EQ(files.config().kind, drafter::DrafterKind::kMedusa);
  EXPECT_EQ(files.config().num_heads, 2);
  EXPECT_EQ(files.config().num_draft_layers, 1);
  EXPECT_EQ(files.config().vocab_size, 96);  // by the first head's output matrix
  EXPECT_EQ(files.config().hidden_size, 32);
  EXPECT_EQ(files.config().base_model, "lmsys/small");
  EXPECT_EQ(kernels::to_fp32(files.matrix("1.1", 96, 32)), std::vector<float>(96 * 32, 0.25f));
  EXPECT_EQ(files.vector("1.0.linear.bias", 32), std::vector<float>(32, 2.0f));
}

TEST_F(MedusaFilesTest, ReadsOtherFilesAndNamesOfTheSame) {
  WrittenHeads written;
  written.file = "model.safetensors";
  written.config["model_type"] = "medusa";
  written.config["vocab_size"] = 96;
  written.config["hidden_size"] = 32;
  written.tensor("1.1.weight").data = bytes_of(std::vector<float>(96 * 32, 0.25f));
  for (TensorToWrite& tensor : written.tensors) tensor.name = "medusa_head." + tensor.name;
  // A checkpoint of heads and base together; and a head more than the config counts.
  written.tensors.push_back({"model.norm.weight", StoredType::kF32, {32}, {}});
  written.tensors.push_back({"medusa_head.2.1.weight", StoredType::kF32, {96, 32}, {}});
  EXPECT_EQ(kernels::to_fp32(open(written).matrix("1.1", 96, 32)),
            std::vector<float>(96 * 32, 0.25f));
  written.tensors.push_back({"medusa_head.1.2.weight", StoredType::kF32, {96, 32}, {}});
  EXPECT_THAT(refusal([&] { open(written); }),
              HasSubstr("\"medusa_head.1.2.weight\" has no place in the drafter"));
}

TEST_F(MedusaFilesTest, ReadsOurKeys) {
  WrittenHeads written;
  written.with_draft_vocab({3, 4, 5, 95});
  written.config["medusa_choices"] = {{0, 1}, {1}, {0}, {0, 0}};
  const DrafterFiles files = open(written, WeightChoice::kBf16);
  EXPECT_EQ(files.config().draft_vocab, (Ids{3, 4, 5, 95}));
  EXPECT_THAT(files.config().choices, ElementsAre(Ids{0}, Ids{1}, Ids{0, 0}, Ids{0, 1}));
  EXPECT_EQ(files.matrix("0.1", 4, 32).format(), kernels::WeightFormat::kBf16);

  // Tied to the base's output rows.
  written.config["tied_head"] = true;
  const auto base = kernels::read_rows(open(written).matrix("0.1", 4, 32));
  EXPECT_EQ(base.values, kernels::read_rows(open(written).matrix("1.1", 4, 32)).values);
  EXPECT_NE(kernels::to_fp32(base), std::vector<float>(4 * 32, 0.0f));
}

TEST_F(MedusaFilesTest, ReadsIntegerMatricesThatTheConfigAnnounces) {
  WrittenHeads written;
  written.with_draft_vocab({3, 4, 5, 95});
  written.config["hidden_size"] = 32;
  written.config["quantization_config"] = {{"quant_method", "paceline"}, {"group_size", 32}};
  for (const std::string head : {"0", "1"}) {
    written.tensor(head + ".1.weight") = {
        head + ".1.qweight", StoredType::kI8, {4, 32}, std::string(4 * 32, '\2')};
    written.tensors.push_back({head + ".1.scales",  // fp16 0.5
                               StoredType::kF16,
                               {4, 1},
                               std::string("\0\x38\0\x38\0\x38\0\x38", 8)});
  }
  EXPECT_EQ(kernels::to_fp32(open(written).matrix("1.1", 4, 32)), std::vector<float>(4 * 32, 1.0f));
}

TEST_F(MedusaFilesTest, RefusesAConfigNamingTheKey) {
  const auto refused = [&](const char* key, const OrderedJson& value) {
    WrittenHeads written;
    written.config[key] = value;
    return refusal([&] { open(written); });
  };
  EXPECT_THAT(refused("medusa_num_heads", 17),
              HasSubstr("\"medusa_num_heads\" is 17, expected a whole number from 1 to 16"));
  EXPECT_THAT(refused("medusa_num_layers", nullptr), HasSubstr("\"medusa_num_layers\" is missing"));
  EXPECT_THAT(refused("hidden_size", "wide"), HasSubstr("\"hidden_size\" is \"wide\""));
  EXPECT_THAT(refused("base_model_name_or_path", 3), HasSubstr("expected a string"));
  EXPECT_THAT(refused("draft_vocab", {3, 4}), HasSubstr("\"vocab_size\" is missing"));
  EXPECT_THAT(refused("medusa_choices", {{0}, 1}), HasSubstr("expected a list of lists of ranks"));
  EXPECT_THAT(refused("medusa_choices", {{0}, {-1}}), HasSubstr("list of lists of ranks"));
  EXPECT_THAT(refused("medusa_choices", OrderedJson::array()), HasSubstr("lists of ranks"));
  EXPECT_THAT(refused("medusa_choices", {{0}, {2, 0}, {1}}), HasSubstr("has [2, 0], but not"));
  // Another layout under the same name (vLLM's) lacks the number of heads.
  WrittenHeads other;
  other.config = {{"model_type", "medusa"}, {"num_heads", 2}};
  EXPECT_THAT(refusal([&] { open(other); }), HasSubstr("\"medusa_num_heads\" is missing"));
}

TEST_F(MedusaFilesTest, RefusesAnotherModelsHeadsNamingBoth) {
  WrittenHeads written;
  for (const char* name : {"0.1.weight", "1.1.weight"}) written.tensor(name).shape = {97, 32};
  EXPECT_THAT(refusal([&] { open(written); }),
              AllOf(HasSubstr(directory().string()), HasSubstr("vocabulary of 97"),
                    HasSubstr("model base has 96")));
}

TEST_F(MedusaFilesTest, RefusesACheckpointThatIsNotWhatTheConfigSays) {
  WrittenHeads fewer;
  fewer.config["medusa_num_heads"] = 3;
  EXPECT_THAT(refusal([&] { open(fewer); }), HasSubstr("2.0.linear"));
  WrittenHeads uneven;
  uneven.tensor("1.1.weight").shape = {95, 32};
  EXPECT_THAT(refusal([&] { open(uneven); }), HasSubstr("expected F32, F16 or BF16 [96, 32]"));
  WrittenHeads flat;
  flat.tensor("0.1.weight").shape = {96 * 32};
  EXPECT_THAT(refusal([&] { open(flat); }), HasSubstr("\"vocab_size\" is missing"));
  WrittenHeads broken;
  std::vector<float> matrix(96 * 32);
  matrix[40] = std::numeric_limits<float>::quiet_NaN();
  broken.tensor("0.1.weight").data = bytes_of(matrix);
  EXPECT_THAT(refusal([&] { open(broken); }),
              AllOf(HasSubstr("\"0.1.weight\""), HasSubstr("element 40")));
}

TEST_F(MedusaFilesTest, SaysHowAPickleIsConverted) {
  WrittenHeads written;
  written.file = "medusa_lm_head.pt";
  EXPECT_THAT(refusal([&] { open(written); }),
              AllOf(HasSubstr("medusa_lm_head.pt is a Python pickle"), HasSubstr("python3 -c"),
                    HasSubstr("for name, tensor in heads.items()}"),
                    HasSubstr("'medusa_lm_head.safetensors'")));
}

}  // namespace
}  // namespace paceline::runtime
