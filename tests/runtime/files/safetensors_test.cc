#include "runtime/files/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/core/error.h"
#include "tests/temporary_directory.h"

namespace paceline::runtime {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// A file: its header's length in 8 little-endian bytes, the header, `data_bytes` bytes 0, 1, 2...
std::string file_of(const std::string& header, std::size_t data_bytes) {
  std::string file;
  for (std::size_t i = 0; i < 8; ++i) file += static_cast<char>(header.size() >> (8 * i) & 255);
  file += header;
  for (std::size_t i = 0; i < data_bytes; ++i) file += static_cast<char>(i);
  return file;
}

SafetensorsHeader parse(const std::string& file) {
  return parse_safetensors(std::as_bytes(std::span(file.data(), file.size())), "m.safetensors");
}

std::string refusal(const std::string& file) {
  try {
    parse(file);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "accepted";
}

std::string refusal(const std::string& header, std::size_t data_bytes) {
  return refusal(file_of(header, data_bytes));
}

// Two tensors behind a header that is padded with spaces, as writers do.
constexpr const char* kTwo = R"({"__metadata__":{"format":"pt"},)"
                             R"("b":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]},)"
                             R"("a":{"dtype":"I8","shape":[],"data_offsets":[12,13]}}   )";

TEST(Safetensors, ReadsTensorsSortedByName) {
  const std::string file = file_of(kTwo, 13);
  const SafetensorsHeader header = parse(file);
  ASSERT_EQ(header.tensors.size(), 2u);
  const StoredTensor& a = header.tensors[0];
  EXPECT_EQ(a.name, "a");
  EXPECT_EQ(a.type, StoredType::kI8);
  EXPECT_TRUE(a.shape.empty());
  EXPECT_EQ(a.num_elements(), 1);
  EXPECT_EQ(a.bytes[0], std::byte{12});
  const StoredTensor& b = header.tensors[1];
  EXPECT_EQ(b.name, "b");
  EXPECT_EQ(b.type, StoredType::kF16);
  EXPECT_THAT(b.shape, ElementsAre(2, 3));
  EXPECT_EQ(b.num_elements(), 6);
  EXPECT_EQ(b.bytes.size(), 12u);
  EXPECT_EQ(header.metadata.at("format"), "pt");
  EXPECT_EQ(header.header_bytes + 13, file.size());
}

TEST(Safetensors, AcceptsEmptyTensorsAndNoTensors) {
  EXPECT_TRUE(parse(file_of("{}", 0)).tensors.empty());
  const std::string file = file_of(R"({"x":{"dtype":"F32","shape":[0,7],"data_offsets":[4,4]},)"
                                   R"("y":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                                   R"("z":{"dtype":"U8","shape":[1],"data_offsets":[4,5]}})",
                                   5);
  const auto tensors = parse(file).tensors;
  EXPECT_EQ(tensors[0].num_elements(), 0);
  EXPECT_EQ(tensors[2].bytes[0], std::byte{4});
}

TEST(Safetensors, RefusesABadLengthPrefix) {
  EXPECT_THAT(refusal(std::string("")), HasSubstr("m.safetensors: 0 bytes"));
  EXPECT_THAT(refusal(std::string(7, '\0')), HasSubstr("7 bytes"));
  EXPECT_THAT(refusal(std::string(8, '\0')), HasSubstr("must begin with {"));
  EXPECT_THAT(refusal(std::string("\x09\0\0\0\0\0\0\0{}      ", 16)), HasSubstr("truncated"));
  EXPECT_THAT(refusal(std::string(8, '\xff') + "{}"), HasSubstr("18446744073709551615 bytes"));
}

TEST(Safetensors, RefusesAHeaderThatIsNotTheFormats) {
  EXPECT_THAT(refusal("[]", 0), HasSubstr("must begin with {"));
  EXPECT_THAT(refusal(" {}", 0), HasSubstr("must begin with {"));
  EXPECT_THAT(refusal("{\"a\":", 0), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal("{}{}", 0), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal(R"({"a":1})", 0), HasSubstr("tensor \"a\": must be an object"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":[[1]],"data_offsets":[0,1]}})", 1),
              HasSubstr("nested deeper"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                      R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                      1),
              HasSubstr("\"a\" occurs twice"));
  EXPECT_THAT(refusal(R"({"__metadata__":{"a":1}})", 0), HasSubstr("__metadata__ key \"a\""));
  EXPECT_THAT(refusal(R"({"__metadata__":[]})", 0), HasSubstr("must be an object"));
}

/// The refusal of one tensor "a" over 8 bytes of data.
std::string refusal_of_tensor(const std::string& fields) {
  return refusal("{\"a\":{" + fields + "}}", 8);
}

TEST(Safetensors, RefusesABadEntryNamingTheTensor) {
  EXPECT_THAT(refusal_of_tensor(R"("dtype":"F33","shape":[2],"data_offsets":[0,8])"),
              HasSubstr("m.safetensors: tensor \"a\": unknown dtype \"F33\""));
  EXPECT_THAT(refusal_of_tensor(R"("shape":[2],"data_offsets":[0,8])"), HasSubstr("dtype"));
  EXPECT_THAT(refusal_of_tensor(R"("dtype":"F32","data_offsets":[0,8])"), HasSubstr("shape"));
  EXPECT_THAT(refusal_of_tensor(R"("dtype":"F32","shape":[2])"), HasSubstr("data_offsets"));
  EXPECT_THAT(refusal_of_tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1)"),
              HasSubstr("unknown key \"x\""));
  EXPECT_THAT(refusal_of_tensor(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])"),
              HasSubstr("holds -2"));
  EXPECT_THAT(refusal_of_tensor(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])"),
              HasSubstr("holds 2.0"));
  EXPECT_THAT(refusal_of_tensor(R"("dtype":"F32","shape":["2"],"data_offsets":[0,8])"),
              HasSubstr("holds string"));
}

TEST(Safetensors, RefusesOffsetsThatDisagree) {
  EXPECT_THAT(refusal_of_tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,8])"),
              HasSubstr("takes 4 bytes, data_offsets give it 8"));
  EXPECT_THAT(refusal_of_tensor(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"),
              HasSubstr("begin and an end"));
  EXPECT_THAT(refusal_of_tensor(R"("dtype":"F32","shape":[4],"data_offsets":[0,16])"),
              HasSubstr("within 8 bytes of data"));
  EXPECT_THAT(refusal_of_tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,8,8])"),
              HasSubstr("at most 2"));
}

TEST(Safetensors, RefusesDimensionsWhoseProductWraps) {
  // 2^32 * 2^32 * 4 is 0 modulo 2^64, 2^62 * 4 is 0 too, and so would 2^63 * 2 be.
  EXPECT_THAT(
      refusal_of_tensor(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0])"),
      HasSubstr("product that overflows"));
  EXPECT_THAT(
      refusal_of_tensor(R"("dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0])"),
      HasSubstr("product that overflows"));
  EXPECT_THAT(
      refusal_of_tensor(R"("dtype":"U8","shape":[0,9223372036854775808],"data_offsets":[0,0])"),
      HasSubstr("product that overflows"));
}

TEST(Safetensors, RefusesGapsAndOverlaps) {
  const auto two = [](const char* a, const char* b) {
    return refusal(std::string(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)") + a +
                       R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + b + "}}",
                   9);
  };
  EXPECT_THAT(two("[0,4]", "[3,7]"),
              HasSubstr("tensor \"b\": its data begins at 3, which overlaps"));
  EXPECT_THAT(two("[0,4]", "[0,4]"), HasSubstr("which overlaps"));
  EXPECT_THAT(two("[5,9]", "[0,4]"), HasSubstr("tensor \"a\": its data begins at 5, which leaves"));
  EXPECT_THAT(two("[1,5]", "[5,9]"), HasSubstr("which leaves a gap"));
  EXPECT_THAT(two("[0,4]", "[4,8]"), HasSubstr("9 bytes of data, but the tensors end at 8"));
}

TEST(SafetensorsIndex, ReadsTheWeightMap) {
  const auto map = parse_safetensors_index(
      R"({"metadata":{"total_size":8},"weight_map":{"a":"m-1.safetensors"}})", "index");
  EXPECT_EQ(map.size(), 1u);
  EXPECT_EQ(map.at("a"), "m-1.safetensors");
}

TEST(SafetensorsIndex, RefusesShardsElsewhere) {
  for (const char* shard :
       {"", ".", "..", "../m.safetensors", "/etc/passwd", "a/b", "a\\\\b", "a\\u0000b"}) {
    EXPECT_THROW(
        parse_safetensors_index(std::string(R"({"weight_map":{"a":")") + shard + "\"}}", "index"),
        ConfigError)
        << shard;
  }
  EXPECT_THROW(parse_safetensors_index("[]", "index"), ConfigError);
  EXPECT_THROW(parse_safetensors_index("{}", "index"), ConfigError);
  EXPECT_THROW(parse_safetensors_index(R"({"weight_map":[]})", "index"), ConfigError);
  EXPECT_THROW(parse_safetensors_index(R"({"weight_map":{"a":1}})", "index"), ConfigError);
}

std::string refusal_of(const std::filesystem::path& directory) {
  try {
    Checkpoint::open(directory);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Checkpoint, OpensASingleFile) {
  const TemporaryDirectory directory;
  directory.write("model.safetensors", file_of(kTwo, 13));
  const Checkpoint checkpoint = Checkpoint::open(directory.path());
  EXPECT_THAT(checkpoint.names(), ElementsAre("a", "b"));
  EXPECT_EQ(checkpoint.total_bytes(), 13u);
  EXPECT_EQ(checkpoint.at("a").bytes[0], std::byte{12});
  EXPECT_EQ(checkpoint.find("c"), nullptr);
  EXPECT_EQ(checkpoint.files().size(), 1u);
  EXPECT_THAT([&] { checkpoint.at("c"); }, ::testing::ThrowsMessage<ConfigError>(HasSubstr(
                                               "model.safetensors: tensor \"c\" is missing")));
}

TEST(Checkpoint, OpensShardsThroughTheirIndex) {
  const TemporaryDirectory directory;
  directory.write("1.safetensors",
                  file_of(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 2));
  directory.write("2.safetensors", file_of(kTwo, 13));
  directory.write("model.safetensors.index.json",
                  R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})");
  const Checkpoint checkpoint = Checkpoint::open(directory.path());
  // "a" is the index's: the one in the second shard is left out.
  EXPECT_EQ(checkpoint.at("a").bytes.size(), 2u);
  EXPECT_EQ(checkpoint.at("b").bytes.size(), 12u);
  EXPECT_EQ(checkpoint.total_bytes(), 14u);
}

TEST(Checkpoint, NamesWhatIsMissing) {
  const TemporaryDirectory directory;
  EXPECT_THAT(refusal_of(directory.path()), HasSubstr("neither model.safetensors nor"));
  directory.write("model.safetensors.index.json", R"({"weight_map":{"c":"2.safetensors"}})");
  EXPECT_THAT(refusal_of(directory.path()), HasSubstr("2.safetensors: cannot be opened"));
  directory.write("2.safetensors", file_of(kTwo, 13));
  EXPECT_THAT(refusal_of(directory.path()), HasSubstr("tensor \"c\" should be in 2.safetensors"));
  std::filesystem::create_directory(directory.path() / "model.safetensors");
  EXPECT_THAT(refusal_of(directory.path()), HasSubstr("is not a regular file"));
}

TEST(Checkpoint, RefusesATruncatedFile) {
  const TemporaryDirectory directory;
  directory.write("model.safetensors", file_of(kTwo, 12));
  EXPECT_THAT(refusal_of(directory.path()), HasSubstr("within 12 bytes of data"));
  directory.write("model.safetensors", "");
  EXPECT_THAT(refusal_of(directory.path()), HasSubstr("0 bytes"));
}

}  // namespace
}  // namespace paceline::runtime
