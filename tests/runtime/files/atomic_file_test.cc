#include "runtime/files/atomic_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "kernels/core/error.h"
#include "tests/temporary_directory.h"

namespace paceline::runtime {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

TEST(AtomicFile, AppearsWholeInPlaceOfTheOldOne) {
  const TemporaryDirectory directory;
  const auto path = directory.write("f", "old");
  {
    AtomicFile file(path);
    file.write(bytes_of("one "));
    file.write(bytes_of("two"));
    EXPECT_EQ(directory.read("f"), "old");
    file.commit();
  }
  EXPECT_EQ(directory.read("f"), "one two");
  EXPECT_FALSE(std::filesystem::exists(directory.path() / "f.tmp"));
}

TEST(AtomicFile, LeavesTheOldOneUnlessCommitted) {
  const TemporaryDirectory directory;
  const auto path = directory.write("f", "old");
  AtomicFile(path).write(bytes_of("half"));
  EXPECT_EQ(directory.read("f"), "old");
  EXPECT_FALSE(std::filesystem::exists(directory.path() / "f.tmp"));
}

TEST(AtomicFile, NamesWhatCannotBeWritten) {
  const TemporaryDirectory directory;
  EXPECT_THROW(AtomicFile(directory.path() / "none" / "f"), ConfigError);
  std::filesystem::create_directory(directory.path() / "d");
  AtomicFile over_a_directory(directory.path() / "d");
  try {
    over_a_directory.commit();
    FAIL() << "replaced a directory";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("/d: cannot be written: "));
  }
}

}  // namespace
}  // namespace paceline::runtime
