#include "runtime/files/sha256.h"

#include <gtest/gtest.h>

#include "kernels/core/error.h"
#include "tests/temporary_directory.h"

namespace paceline::runtime {
namespace {

// Vectors of FIPS 180-4 and NIST's examples.
constexpr const char* kEmpty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
constexpr const char* kAbc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
constexpr const char* kMillionA =
    "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

TEST(Sha256, KnownVectors) {
  EXPECT_EQ(sha256_hex(""), kEmpty);
  EXPECT_EQ(sha256_hex("abc"), kAbc);
  EXPECT_EQ(sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256_hex(std::string(1'000'000, 'a')), kMillionA);
}

TEST(Sha256, PiecesMakeTheSameDigestAsTheWhole) {
  Sha256 hash;
  hash.update("a").update("").update("bc");
  EXPECT_EQ(hash.finish_hex(), kAbc);
}

TEST(Sha256, FinishStartsAnew) {
  Sha256 hash;
  hash.update("something else");
  hash.finish();
  EXPECT_EQ(hash.finish_hex(), kEmpty);
}

TEST(Sha256, HashesAFileLargerThanOnePiece) {
  const TemporaryDirectory directory;
  EXPECT_EQ(sha256_of_file(directory.write("a", std::string(1'000'000, 'a'))), kMillionA);
  const std::string large(3'000'000, 'b');
  EXPECT_EQ(sha256_of_file(directory.write("b", large)), sha256_hex(large));
  EXPECT_EQ(sha256_of_file(directory.write("c", "")), kEmpty);
  EXPECT_THROW(sha256_of_file(directory.path() / "missing"), ConfigError);
  EXPECT_THROW(sha256_of_file(directory.path()), ConfigError);
}

}  // namespace
}  // namespace paceline::runtime
