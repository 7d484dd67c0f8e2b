#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/core/kv_address.h"
#include "kernels/cpu/ops.h"
#include "kernels/reference/ops.h"
#include "tests/kernels/accepted_path.h"
#include "tests/kernels/every_cpu.h"

namespace paceline::kernels {
namespace {

using Paths = std::vector<AcceptedPath>;

/// Two sequences of three pages each in a cache whose bytes are all different from their
/// neighbours'.
struct Cache {
  explicit Cache(KvFormat format) {
    pool = {nullptr, format, 3, 2, 16, 8, 8};
    bytes.resize(pool.num_pages * page_bytes(pool));
    pool.data = bytes.data();
    std::mt19937 random(5);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  }
  Cache(const Cache&) = delete;
  Cache& operator=(const Cache&) = delete;

  CompactKvParams params(const Paths& paths) const {
    return {pool, {pages.data(), 3}, paths.data(), static_cast<std::int64_t>(paths.size())};
  }
  /// A key's or value's elements and, if it has one, its scale.
  std::vector<std::byte> row(std::int32_t sequence, std::int32_t slot, int layer, KvPart part,
                             int head) const {
    const std::int64_t offset =
        kv_offset(pool, {pages.data(), 3}, sequence, slot, layer, part, head);
    const std::size_t element = element_bytes(pool.format);
    const std::byte* elements = pool.data + static_cast<std::size_t>(offset) * element;
    std::vector<std::byte> row(elements, elements + 8 * element);
    if (pool.format == KvFormat::kInt8) {
      const auto* scale = reinterpret_cast<const std::byte*>(&kv_scale(pool, offset, slot));
      row.insert(row.end(), scale, scale + sizeof(float));
    }
    return row;
  }

  KvPool pool;
  std::vector<std::int32_t> pages = {4, 0, 7, 2, 5, 1};
  std::vector<std::byte> bytes;
};

// A sequence of 14 tokens drafted nodes in slots 14 ... 20 and accepted those in 15, 17 and 18:
// they move to 14, 15 and 16, the last two over a page's end.
TEST(CompactKv, MovesAcceptedNodesIntoPlace) {
  const Paths paths = {path_of(0, 14, {1, 3, 4}), path_of(1, 40, {0, 2})};
  for (const KvFormat format : {KvFormat::kFp32, KvFormat::kBf16, KvFormat::kInt8}) {
    const Cache before(format);
    Cache after(format);
    reference::compact_kv(after.params(paths));
    for (int layer = 0; layer < 3; ++layer) {
      for (const KvPart part : {KvPart::kKey, KvPart::kValue}) {
        for (int head = 0; head < 2; ++head) {
          for (std::int32_t sequence = 0; sequence < 2; ++sequence) {
            for (std::int32_t slot = 0; slot < 48; ++slot) {
              std::int32_t from = slot;
              for (const AcceptedPath& path : paths) {
                const std::int32_t i = slot - path.first_slot;
                if (path.sequence == sequence && i >= 0 && i < path.count) {
                  from = path.first_slot + path.nodes[i];
                }
              }
              EXPECT_EQ(after.row(sequence, slot, layer, part, head),
                        before.row(sequence, from, layer, part, head))
                  << "sequence " << sequence << ", slot " << slot;
            }
          }
        }
      }
    }
    on_every_cpu([&](const cpu::RowOps& ops, ThreadPool& pool) {
      Cache cache(format);
      cpu::compact_kv(cache.params(paths), ops, pool);
      EXPECT_EQ(cache.bytes, after.bytes);
    });
  }
}

TEST(CompactKv, ARankWithoutHeadsMovesNothing) {
  Cache cache(KvFormat::kFp32);
  const Paths paths = {path_of(0, 14, {1})};
  CompactKvParams params = cache.params(paths);
  params.kv.num_heads = 0;
  const std::vector<std::byte> before = cache.bytes;
  reference::compact_kv(params);
  on_every_cpu([&](const cpu::RowOps& ops, ThreadPool& pool) {
    cpu::compact_kv(params, ops, pool);
    EXPECT_EQ(cache.bytes, before);
  });
}

TEST(CompactKv, RefusesMovesThatOverwriteWhatIsStillToBeRead) {
  AcceptedPath too_long;
  too_long.count = kMaxPathLength + 1;
  for (const Paths& paths :
       {Paths{path_of(0, 3, {-1})}, {path_of(0, 5, {3, 3})}, {path_of(1, 5, {4, 2})}, {too_long}}) {
    Cache cache(KvFormat::kBf16);
    EXPECT_THROW(reference::compact_kv(cache.params(paths)), FatalError);
    on_every_cpu([&](const cpu::RowOps& ops, ThreadPool& pool) {
      EXPECT_THROW(cpu::compact_kv(cache.params(paths), ops, pool), FatalError);
    });
  }
}

}  // namespace
}  // namespace paceline::kernels
