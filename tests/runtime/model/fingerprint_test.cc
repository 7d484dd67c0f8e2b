#include "runtime/model/fingerprint.h"

#include <gtest/gtest.h>

#include "tests/runtime/files/safetensors_text.h"
#include "tests/temporary_directory.h"

namespace paceline::runtime {
namespace {

class FingerprintTest : public ::testing::Test {
 protected:
  FingerprintTest() {
    directory_.write("config.json", "{}");
    write_weights(std::string(20'000, 'w'));
  }
  void write_weights(const std::string& data) const {
    // Replaced, not overwritten: the old file may still be mapped.
    std::filesystem::remove(directory_.path() / "model.safetensors");
    directory_.write("model.safetensors",
                     safetensors_text({{"w", StoredType::kU8, {20'000}, data}}));
  }
  std::string fingerprint(std::size_t whole_hash_bytes = kWholeHashBytes) const {
    return model_fingerprint(directory_.path(), Checkpoint::open(directory_.path()),
                             whole_hash_bytes);
  }

  TemporaryDirectory directory_;
};

TEST_F(FingerprintTest, ChangesWithEveryFileThatMatters) {
  const std::string before = fingerprint();
  EXPECT_EQ(before.size(), 64u);
  EXPECT_EQ(fingerprint(), before);
  directory_.write("README.md", "about it");
  EXPECT_EQ(fingerprint(), before);
  directory_.write("tokenizer.json", "{}");
  EXPECT_NE(fingerprint(), before);
  std::filesystem::remove(directory_.path() / "tokenizer.json");
  EXPECT_EQ(fingerprint(), before);
  directory_.write("config.json", "{ }");
  EXPECT_NE(fingerprint(), before);
}

TEST_F(FingerprintTest, SmallWeightFilesAreHashedWhole) {
  const std::string before = fingerprint();
  std::string data(20'000, 'w');
  data.back() = 'x';
  write_weights(data);
  EXPECT_NE(fingerprint(), before);
}

TEST_F(FingerprintTest, LargeOnesByTheBeginningOfEveryTensor) {
  const std::string before = fingerprint(100);
  std::string data(20'000, 'w');
  data[4095] = 'x';
  write_weights(data);
  EXPECT_NE(fingerprint(100), before);
  data[4095] = 'w';
  data[4096] = 'x';
  write_weights(data);
  EXPECT_EQ(fingerprint(100), before);
}

}  // namespace
}  // namespace paceline::runtime
