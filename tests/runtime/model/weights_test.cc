#include "runtime/model/weights.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "runtime/bench/machine.h"
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

}  // namespace
}  // namespace paceline::runtime
