#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "kernels/api.h"
#include "kernels/core/error.h"

namespace paceline::kernels {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::unique_ptr<Backend>> all_backends() {
  std::vector<std::unique_ptr<Backend>> backends;
  backends.push_back(make_reference_backend());
  for (std::string_view isa : supported_isas()) {
    backends.push_back(make_cpu_backend({.threads = 2, .isa = std::string(isa)}));
  }
  return backends;
}

TEST(Backend, AllOfThisMachineShareTheirNumerics) {
  for (const auto& backend : all_backends()) EXPECT_EQ(backend->numerics(), "cpu");
}

TEST(Backend, DescribesItself) {
  EXPECT_EQ(make_reference_backend()->description(), "reference, 1 thread");
  EXPECT_EQ(make_cpu_backend({.threads = 2, .isa = "avx2"})->description(), "avx2, 2 threads");
}

TEST(Backend, MemoryIsZeroedAlignedAndCopied) {
  for (const auto& backend : all_backends()) {
    const Buffer buffer = backend->allocate(100);
    EXPECT_EQ(buffer.bytes(), 100u);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.as<char>()) % 64, 0u);
    std::vector<unsigned char> host(100, 7);
    backend->download(host.data(), buffer.as<void>(), 100);
    EXPECT_THAT(host, Each(0));
    const float value = 1.5f;
    float back = 0;
    backend->upload(buffer.as<float>() + 3, &value, sizeof(value));
    backend->download(&back, buffer.as<float>() + 3, sizeof(back));
    backend->synchronize();
    EXPECT_EQ(back, 1.5f);
    EXPECT_EQ(backend->allocate(0).bytes(), 0u);
  }
}

// [[1, 2], [3, 4], [5, 6]] times (10, 100), then its rows looked up, on every backend.
TEST(Backend, MultipliesAndLooksUp) {
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  HostMatrix matrix{WeightFormat::kFp32, 3, 2, {}, {}, {}};
  matrix.values.resize(values.size() * sizeof(float));
  std::memcpy(matrix.values.data(), values.data(), matrix.values.size());
  for (const auto& backend : all_backends()) {
    const auto packed = backend->pack(matrix, Reduction::whole(2));
    EXPECT_EQ(packed->rows(), 3);
    EXPECT_EQ(packed->cols(), 2);
    EXPECT_EQ(packed->format(), WeightFormat::kFp32);
    EXPECT_EQ(packed->reduction(), Reduction::whole(2));
    EXPECT_GE(packed->bytes(), 24u);

    const Buffer in = backend->allocate(2 * sizeof(float));
    const Buffer out = backend->allocate(4 * sizeof(float));
    const std::vector<float> row = {10, 100};
    backend->upload(in.as<void>(), row.data(), 2 * sizeof(float));
    backend->linear({packed.get(), in.as<float>(), out.as<float>(), 1});
    std::vector<float> product(3);
    backend->download(product.data(), out.as<void>(), 3 * sizeof(float));
    EXPECT_THAT(product, ElementsAre(210, 430, 650)) << backend->description();

    const Buffer tokens = backend->allocate(2 * sizeof(std::int32_t));
    const std::vector<std::int32_t> ids = {12, 5};
    backend->upload(tokens.as<void>(), ids.data(), 2 * sizeof(std::int32_t));
    backend->embed({packed.get(), tokens.as<std::int32_t>(), 10, out.as<float>(), 2});
    std::vector<float> rows(4);
    backend->download(rows.data(), out.as<void>(), 4 * sizeof(float));
    EXPECT_THAT(rows, ElementsAre(5, 6, 0, 0)) << backend->description();
  }
}

TEST(Backend, RefusesOptionsThatCannotBe) {
  EXPECT_THROW(make_cpu_backend({.threads = 0}), ConfigError);
  EXPECT_THROW(make_cpu_backend({.threads = 1, .cpus = {0, 1}}), ConfigError);
  try {
    make_cpu_backend({.isa = "neon"});
    FAIL() << "expected a ConfigError";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("neon"));
    EXPECT_THAT(error.what(), HasSubstr("avx2"));
  }
}

// 1 + 2 + ... + n, with a word that makes the sum wrap, at sizes around a cache line and a thread's
// share.
TEST(Backend, SumsWords) {
  for (const auto& backend : all_backends()) {
    for (const std::int64_t count : {0, 1, 7, 8, 9, 4096, 20'003}) {
      std::vector<std::uint64_t> words(static_cast<std::size_t>(count) + 1);
      for (std::int64_t i = 0; i < count; ++i) words[i] = static_cast<std::uint64_t>(i) + 1;
      const Buffer memory = backend->allocate(words.size() * sizeof(std::uint64_t));
      auto* device = memory.as<std::uint64_t>();
      const Buffer sum = backend->allocate(sizeof(std::uint64_t));
      const auto sum_of = [&](std::int64_t some) {
        backend->upload(device, words.data(), words.size() * sizeof(std::uint64_t));
        backend->sum_words({.words = device, .sum = sum.as<std::uint64_t>(), .count = some});
        std::uint64_t got = 0;
        backend->download(&got, sum.as<void>(), sizeof(got));
        return got;
      };
      const auto expected = static_cast<std::uint64_t>(count * (count + 1) / 2);
      EXPECT_EQ(sum_of(count), expected) << backend->description();
      words[count] = ~std::uint64_t{0};
      EXPECT_EQ(sum_of(count + 1), expected - 1) << backend->description();
    }
  }
}

}  // namespace
}  // namespace paceline::kernels
