#include "runtime/files/safetensors_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <vector>

#include "kernels/core/error.h"
#include "tests/temporary_directory.h"

namespace paceline::runtime {
namespace {

using ::testing::ElementsAre;

template <typename T>
StoredTensor tensor_of(std::string name, StoredType type, std::vector<std::int64_t> shape,
                       const std::vector<T>& values) {
  return {std::move(name), type, std::move(shape), std::as_bytes(std::span(values))};
}

template <typename T>
std::vector<T> values_of(const StoredTensor* tensor) {
  std::vector<T> values(tensor->num_elements());
  std::memcpy(values.data(), tensor->bytes.data(), tensor->bytes.size());
  return values;
}

TEST(SafetensorsWriter, WritesWhatTheReaderReads) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "model.safetensors";
  const std::vector<float> weight{1.5f, -2,    std::numeric_limits<float>::infinity(),
                                  0,    -0.0f, 1e-42f};
  const std::vector<std::int8_t> bytes{-1, 2, -3};
  const std::vector<std::uint16_t> halves{7};
  const std::vector<std::uint8_t> none;
  write_safetensors(path, std::vector{tensor_of("z.bytes", StoredType::kI8, {3}, bytes),
                                      tensor_of("b.half \"1\"", StoredType::kBF16, {}, halves),
                                      tensor_of("none", StoredType::kU8, {0, 4}, none),
                                      tensor_of("a.weight", StoredType::kF32, {2, 3}, weight)});
  const SafetensorsFile file = SafetensorsFile::open(path);
  EXPECT_EQ(file.header().tensors.size(), 4u);
  EXPECT_EQ(file.header().metadata, (std::map<std::string, std::string>{{"format", "pt"}}));
  EXPECT_THAT(file.find("a.weight")->shape, ElementsAre(2, 3));
  EXPECT_EQ(file.find("a.weight")->type, StoredType::kF32);
  EXPECT_EQ(values_of<float>(file.find("a.weight")), weight);
  EXPECT_EQ(values_of<std::int8_t>(file.find("z.bytes")), bytes);
  EXPECT_TRUE(file.find("b.half \"1\"")->shape.empty());
  EXPECT_EQ(values_of<std::uint16_t>(file.find("b.half \"1\"")), halves);
  EXPECT_THAT(file.find("none")->shape, ElementsAre(0, 4));
}

TEST(SafetensorsWriter, AlignsEachTensorToItsElements) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "m";
  const std::vector<std::int8_t> byte{1};
  const std::vector<std::uint16_t> half{2};
  const std::vector<double> wide{3};
  write_safetensors(path, std::vector{tensor_of("a", StoredType::kI8, {1}, byte),
                                      tensor_of("b", StoredType::kF16, {1}, half),
                                      tensor_of("c", StoredType::kF64, {1}, wide)});
  const SafetensorsFile file = SafetensorsFile::open(path);
  for (const StoredTensor& tensor : file.header().tensors) {
    const auto offset = tensor.bytes.data() - file.bytes().data();
    EXPECT_EQ(offset % static_cast<std::ptrdiff_t>(stored_size(tensor.type)), 0) << tensor.name;
  }
}

TEST(SafetensorsWriter, TheSameTensorsGiveTheSameBytes) {
  const TemporaryDirectory directory;
  const std::vector<float> one{1}, two{2};
  const auto a = tensor_of("a", StoredType::kF32, {1}, one);
  const auto b = tensor_of("b", StoredType::kF32, {1}, two);
  write_safetensors(directory.path() / "ab", std::vector{a, b});
  write_safetensors(directory.path() / "ba", std::vector{b, a});
  EXPECT_EQ(directory.read("ab"), directory.read("ba"));
}

TEST(SafetensorsWriter, WithoutTensorsOrMetadata) {
  const TemporaryDirectory directory;
  write_safetensors(directory.path() / "m", {}, {});
  EXPECT_TRUE(SafetensorsFile::open(directory.path() / "m").header().tensors.empty());
}

TEST(SafetensorsWriter, RefusesTensorsThatMakeNoFile) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "m";
  const std::vector<float> two{1, 2};
  const auto a = tensor_of("a", StoredType::kF32, {2}, two);
  EXPECT_THROW(write_safetensors(path, std::vector{a, a}), FatalError);
  EXPECT_THROW(write_safetensors(path, std::vector{tensor_of("a", StoredType::kF32, {3}, two)}),
               FatalError);
  EXPECT_THROW(write_safetensors(path, std::vector{tensor_of("a", StoredType::kF32, {-2}, two)}),
               FatalError);
  EXPECT_THROW(
      write_safetensors(path, std::vector{tensor_of("__metadata__", StoredType::kF32, {2}, two)}),
      FatalError);
  EXPECT_THROW(write_safetensors(directory.path() / "none" / "m", std::vector{a}), ConfigError);
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

}  // namespace
}  // namespace paceline::runtime
