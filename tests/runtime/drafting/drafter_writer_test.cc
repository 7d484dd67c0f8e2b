#include "runtime/drafting/drafter_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "drafter/training/trained_weights.h"
#include "kernels/core/error.h"
#include "runtime/drafting/drafter_files.h"
#include "tests/drafter/training/random_numbers.h"
#include "tests/runtime/drafting/apple_golden.h"
#include "tests/temporary_directory.h"

namespace paceline::runtime {
namespace {

using kernels::WeightFormat;
using ::testing::HasSubstr;

/// A head for the small base model of Apple's examples, with random weights.
drafter::DrafterConfig config_of(std::int64_t exit_dim) {
  drafter::DrafterConfig config;
  config.vocab_size = 96;
  config.hidden_size = 32;
  config.exit_dim = exit_dim;
  config.num_draft_layers = 2;
  config.rnn = true;
  return config;
}

void fill(drafter::HeadParameters& head) {
  drafter::RandomNumbers random(1);
  for (float& value : head.values()) value = random.next();
}

class DrafterWriterTest : public testing::Test {
 protected:
  DrafterFiles reopen() {
    return DrafterFiles::open(directory(), WeightChoice::kAuto, {"base", config_, checkpoint_});
  }
  std::filesystem::path directory() const { return temporary_.path() / "new" / "drafter"; }

 private:
  TemporaryDirectory temporary_;
  ModelConfig config_ = read_model_config(apple_golden_dir() / "base");
  Checkpoint checkpoint_ = Checkpoint::open(apple_golden_dir() / "base");
};

/// Whether what was written is what was trained.
void expect_stored(const DrafterFiles& files, const drafter::HeadParameters& head,
                   WeightFormat format) {
  const drafter::TrainedWeights trained(head, {}, format);
  for (const drafter::TensorPlace& place : head.layout().tensors) {
    const std::string name = place.name.substr(0, place.name.rfind(".weight"));
    if (place.shape.size() == 1) {
      EXPECT_EQ(files.vector(name, place.size), trained.vector(name, place.size));
      continue;
    }
    const auto stored = kernels::read_rows(files.matrix(name, place.shape[0], place.shape[1]));
    const auto expected = kernels::read_rows(trained.matrix(name, place.shape[0], place.shape[1]));
    EXPECT_EQ(stored.format, format);
    EXPECT_EQ(stored.values, expected.values) << name;
    EXPECT_EQ(stored.scales, expected.scales) << name;
  }
}

TEST_F(DrafterWriterTest, WritesWhatDrafterFilesReads) {
  for (const WeightFormat format :
       {WeightFormat::kFp32, WeightFormat::kBf16, WeightFormat::kInt8Group}) {
    for (const std::int64_t exit_dim : {64, 32}) {
      drafter::DrafterConfig config = config_of(exit_dim);
      if (exit_dim == 32) config.draft_vocab = {0, 5, 95};
      drafter::HeadParameters head(config);
      fill(head);
      write_drafter(directory(), head, format);

      const DrafterFiles files = reopen();
      EXPECT_EQ(files.config().exit_dim, exit_dim);
      EXPECT_EQ(files.config().num_draft_layers, 2);
      EXPECT_EQ(files.config().rnn, true);
      EXPECT_EQ(files.config().draft_vocab, config.draft_vocab);
      expect_stored(files, head, format);
    }
  }
}

TEST_F(DrafterWriterTest, WritesMedusasFormatForMedusaHeads) {
  for (const WeightFormat format :
       {WeightFormat::kFp32, WeightFormat::kBf16, WeightFormat::kInt8Group}) {
    drafter::DrafterConfig config = config_of(32);
    config.kind = drafter::DrafterKind::kMedusa;
    config.rnn = false;
    config.num_heads = 3;
    config.base_model = "small";
    config.choices = {{0}, {1}, {0, 0}};
    if (format != WeightFormat::kFp32) config.draft_vocab = {0, 5, 95};
    drafter::HeadParameters head(config);
    fill(head);
    write_drafter(directory(), head, format);
    EXPECT_TRUE(std::filesystem::exists(directory() / "medusa_lm_head.safetensors"));
    EXPECT_FALSE(std::filesystem::exists(directory() / "model.safetensors"));

    const DrafterFiles files = reopen();
    EXPECT_EQ(files.config().kind, drafter::DrafterKind::kMedusa);
    EXPECT_EQ(files.config().num_heads, 3);
    EXPECT_EQ(files.config().num_draft_layers, 2);
    EXPECT_EQ(files.config().base_model, "small");
    EXPECT_EQ(files.config().choices, config.choices);
    EXPECT_EQ(files.config().draft_vocab, config.draft_vocab);
    expect_stored(files, head, format);
  }
}

TEST_F(DrafterWriterTest, LeavesATiedOutputToTheBase) {
  drafter::DrafterConfig config = config_of(32);
  config.tied_head = true;
  drafter::HeadParameters head(config);
  write_drafter(directory(), head, WeightFormat::kFp32);
  EXPECT_TRUE(reopen().config().tied_head);
  EXPECT_EQ(Checkpoint::open(directory()).find("lm_head.2.weight"), nullptr);
}

TEST_F(DrafterWriterTest, RefusesWhatNoReaderWouldTake) {
  const auto refusal = [&](const drafter::HeadParameters& head, WeightFormat format) {
    try {
      write_drafter(directory(), head, format);
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string("written");
  };
  drafter::HeadParameters odd(config_of(40));
  EXPECT_THAT(refusal(odd, WeightFormat::kInt8Group), HasSubstr("multiples of 32"));
  odd.values()[3] = std::numeric_limits<float>::infinity();
  EXPECT_THAT(refusal(odd, WeightFormat::kFp32), HasSubstr("rnn_u.weight has a number"));
  EXPECT_FALSE(std::filesystem::exists(directory()));
}

}  // namespace
}  // namespace paceline::runtime
