#include <gtest/gtest.h>
#include <test_device.h>

#include <algorithm>
#include <random>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/core/kv_address.h"
#include "kernels/cuda/ops.h"
#include "kernels/reference/ops.h"
#include "tests/kernels/accepted_path.h"
#include "tests/kernels/every_cpu.h"

namespace paceline::kernels {
namespace {

using Floats = std::vector<float>;
using Bytes = std::vector<std::byte>;
using Paths = std::vector<AcceptedPath>;

constexpr int kNumHeads = 3;
constexpr std::int64_t kRows = 3;

/// Two sequences in a cache of eight pages with 16 slots each, two layers, two heads.
struct Cache {
  Cache(KvFormat format, int head_dim) {
    pool = {.format = format,
            .num_layers = 2,
            .num_heads = 2,
            .page_size = 16,
            .head_dim = head_dim,
            .num_pages = 8};
    bytes.resize(pool.num_pages * page_bytes(pool));
    std::mt19937 random(5);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    pool.data = bytes.data();
  }
  Cache(const Cache&) = delete;
  Cache& operator=(const Cache&) = delete;

  PageTable table() const { return {pages.data(), 3}; }

  KvPool pool;
  std::vector<std::int32_t> pages = {4, 0, 7, 2, 5, 1};
  Bytes bytes;
};

/// The cache and q, k, v after a step of three rows.
template <typename Op>
void append(Cache& cache, Floats& qkv, bool with_bias, const Op& op) {
  const int heads = kNumHeads + 2 * cache.pool.num_heads;
  const int head_dim = cache.pool.head_dim;
  // Which NaN it is may differ, and int8 alone does not keep it.
  const bool finite = cache.pool.format != KvFormat::kInt8;
  qkv = awkward_floats(kRows * heads * head_dim, finite, 1);
  const Floats bias = awkward_floats(heads * head_dim, true, 2);
  const Floats cos = random_floats(kRows * head_dim / 2, 1, 3);
  const Floats sin = random_floats(kRows * head_dim / 2, 1, 4);
  const std::vector<RowPlace> rows_at = {{.sequence = 1, .position = 3, .slot = 3},
                                         {.sequence = 1, .position = 17, .slot = 40},
                                         {.sequence = 0, .position = 0, .slot = 0}};
  op(RopeAppendParams{.qkv = qkv.data(),
                      .bias = with_bias ? bias.data() : nullptr,
                      .cos = cos.data(),
                      .sin = sin.data(),
                      .kv = cache.pool,
                      .layer = 1,
                      .num_heads = kNumHeads,
                      .rows_at = rows_at.data(),
                      .page_table = cache.table(),
                      .rows = kRows});
}

TEST(CudaRopeAppend, SameBits) {
  for (const KvFormat format : {KvFormat::kFp32, KvFormat::kBf16, KvFormat::kInt8}) {
    for (const int head_dim : {2, 20, 64, 128}) {
      for (const bool with_bias : {false, true}) {
        Cache expected_cache(format, head_dim);
        Floats expected;
        append(expected_cache, expected, with_bias, reference::rope_append);
        in_every_order([&] {
          Cache cache(format, head_dim);
          Floats qkv;
          append(cache, qkv, with_bias,
                 [](const RopeAppendParams& params) { cuda::rope_append(params, nullptr); });
          expect_same_bits(qkv, expected);
          EXPECT_EQ(cache.bytes, expected_cache.bytes);
        });
      }
    }
  }
}

TEST(CudaRopeAppend, RefusesHeadsThatHaveNoPairs) {
  RopeAppendParams params;
  params.kv.head_dim = 5;
  EXPECT_THROW(cuda::rope_append(params, nullptr), FatalError);
}

CompactKvParams compact_params(const Cache& cache, const Paths& paths) {
  return {cache.pool, cache.table(), paths.data(), static_cast<std::int64_t>(paths.size())};
}

// Slots 15, 17 and 18 of one sequence move to 14, 15 and 16.  Then a sequence that moves within its
// last page.
TEST(CudaCompactKv, MovesOneAfterTheOther) {
  const Paths paths = {path_of(0, 14, {1, 3, 4}), path_of(1, 40, {0, 2})};
  for (const KvFormat format : {KvFormat::kFp32, KvFormat::kBf16, KvFormat::kInt8}) {
    for (const int head_dim : {8, 64, 128}) {
      Cache expected(format, head_dim);
      const Bytes before = expected.bytes;
      reference::compact_kv(compact_params(expected, paths));
      EXPECT_NE(expected.bytes, before);
      in_every_order([&] {
        Cache cache(format, head_dim);
        cuda::compact_kv(compact_params(cache, paths), nullptr);
        EXPECT_EQ(cache.bytes, expected.bytes);
      });
    }
  }
}

TEST(CudaCompactKv, ARankWithoutHeadsMovesNothing) {
  Cache cache(KvFormat::kFp32, 8);
  const Bytes before = cache.bytes;
  const Paths paths = {path_of(0, 14, {1})};
  CompactKvParams params = compact_params(cache, paths);
  params.kv.num_heads = 0;
  cuda::compact_kv(params, nullptr);
  EXPECT_EQ(cache.bytes, before);
}

TEST(CudaCompactKv, TrapsOnMovesThatOverwriteWhatIsStillToBeRead) {
  AcceptedPath too_long;
  too_long.count = kMaxPathLength + 1;
  for (const Paths& paths :
       {Paths{path_of(0, 3, {-1})}, {path_of(0, 5, {3, 3})}, {path_of(1, 5, {4, 2})}, {too_long}}) {
    Cache cache(KvFormat::kBf16, 8);
    expect_trap([&] { cuda::compact_kv(compact_params(cache, paths), nullptr); });
  }
}

}  // namespace
}  // namespace paceline::kernels
