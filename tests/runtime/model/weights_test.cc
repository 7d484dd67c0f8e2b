#include "runtime/model/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "runtime/bench/machine.h"
#include "tests/runtime/files/safetensors_text.h"
#include "tests/temporary_directory.h"

namespace paceline::runtime {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

// A matrix of 384 MiB, read a MiB at a time: what was read is given back every 256.
TEST(WeightReader, DoesNotKeepWhatItHasRead) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "AddressSanitizer keeps what is freed, up to 256 MiB of it";
#endif
  constexpr std::int64_t kRows = 384 << 10, kCols = 256;
  const std::string header =
      R"({"big.weight":{"dtype":"F32","shape":[393216,256],"data_offsets":[0,402653184]}})";
  std::string file;
  for (std::size_t i = 0; i < 8; ++i) file += static_cast<char>(header.size() >> (8 * i) & 255);
  const TemporaryDirectory directory;
  directory.write("model.safetensors", file + header);
  std::filesystem::resize_file(directory.path() / "model.safetensors",
                               file.size() + header.size() + 384 * kMiB);  // zeros

  const Checkpoint checkpoint = Checkpoint::open(directory.path());
  const ModelConfig config;
  const kernels::MatrixSource matrix =
      WeightReader(checkpoint, config)
          .rows("big", kRows, kCols, {0, kRows}, kernels::WeightFormat::kInt8Channel);
  const std::uint64_t before = resident_memory();
  std::uint64_t most = 0;
  for (std::int64_t row = 0; row < kRows; row += 1024) {
    const kernels::HostMatrix some = kernels::read_rows(matrix, {row, row + 1024});
    ASSERT_TRUE(std::ranges::all_of(some.values, [](std::byte b) { return b == std::byte{0}; }));
    most = std::max(most, resident_memory());
  }
  EXPECT_GT(most, before + 128 * kMiB);
  EXPECT_LT(most, before + 320 * kMiB);
  EXPECT_LT(resident_memory(), before + 192 * kMiB);
}

// Row 37 of 40 holds an infinity. Whatever part is read, and however few rows at a time, the
// refusal names the file's row.
TEST(WeightReader, NamesTheRowThatAFormatCannotHold) {
  std::vector<float> values(40 * 64, 0.5f);
  values[37 * 64 + 3] = std::numeric_limits<float>::infinity();
  const std::string data(reinterpret_cast<const char*>(values.data()), values.size() * 4);
  const TemporaryDirectory directory;
  directory.write("model.safetensors",
                  safetensors_text({{"up.weight", StoredType::kF32, {40, 64}, data}}));
  const Checkpoint checkpoint = Checkpoint::open(directory.path());
  const ModelConfig config;
  const WeightReader reader(checkpoint, config);
  const auto refusal = [](const kernels::MatrixSource& matrix, kernels::IndexRange rows) {
    try {
      kernels::read_rows(matrix, rows);
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  using kernels::WeightFormat;
  const std::string expected = directory.path().string();
  for (const WeightFormat format :
       {WeightFormat::kInt8Channel, WeightFormat::kInt4Group, WeightFormat::kFp8}) {
    for (const std::string& message :
         {refusal(reader.rows("up", 40, 64, {0, 40}, format), {0, 40}),
          refusal(reader.rows("up", 40, 64, {32, 40}, format), {4, 8}),
          refusal(reader.cols("up", 40, 64, {0, 32}, format), {36, 38})}) {
      EXPECT_THAT(message,
                  testing::AllOf(testing::HasSubstr(expected), testing::HasSubstr("row 37 of "),
                                 testing::HasSubstr("tensor \"up.weight\" is not finite")));
    }
    EXPECT_EQ(refusal(reader.rows("up", 40, 64, {0, 37}, format), {0, 37}), "accepted");
  }
}

}  // namespace
}  // namespace paceline::runtime
