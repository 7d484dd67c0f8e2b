#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/core/kv_address.h"
#include "kernels/cpu/ops.h"
#include "kernels/reference/ops.h"
#include "tests/kernels/every_cpu.h"

namespace paceline::kernels {
namespace {

using Moves = std::vector<KvMove>;

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

  CompactKvParams params(const Moves& moves) const {
    return {pool, {pages.data(), 3}, moves.data(), static_cast<std::int64_t>(moves.size())};
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

// A sequence of 14 tokens drafted nodes in slots 14 ... 20 and accepted those in 15, 18 and 17:
// they move to 14, 15 and 16, the last two over a page's end.
TEST(CompactKv, MovesAcceptedNodesIntoPlace) {
  const Moves moves = {{0, 15, 14}, {0, 18, 15}, {0, 17, 16}, {1, 40, 40}, {1, 42, 41}};
  for (const KvFormat format : {KvFormat::kFp32, KvFormat::kBf16, KvFormat::kInt8}) {
    const Cache before(format);
    Cache after(format);
    reference::compact_kv(after.params(moves));
    for (int layer = 0; layer < 3; ++layer) {
      for (const KvPart part : {KvPart::kKey, KvPart::kValue}) {
        for (int head = 0; head < 2; ++head) {
          for (std::int32_t sequence = 0; sequence < 2; ++sequence) {
            for (std::int32_t slot = 0; slot < 48; ++slot) {
              std::int32_t from = slot;
              for (const KvMove& move : moves) {
                if (move.sequence == sequence && move.to == slot) from = move.from;
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
      cpu::compact_kv(cache.params(moves), ops, pool);
      EXPECT_EQ(cache.bytes, after.bytes);
    });
  }
}

TEST(CompactKv, ARankWithoutHeadsMovesNothing) {
  Cache cache(KvFormat::kFp32);
  const Moves moves = {{0, 15, 14}};
  CompactKvParams params = cache.params(moves);
  params.kv.num_heads = 0;
  const std::vector<std::byte> before = cache.bytes;
  reference::compact_kv(params);
  on_every_cpu([&](const cpu::RowOps& ops, ThreadPool& pool) {
    cpu::compact_kv(params, ops, pool);
    EXPECT_EQ(cache.bytes, before);
  });
}

TEST(CompactKv, RefusesMovesThatOverwriteWhatIsStillToBeRead) {
  for (const Moves& moves :
       {Moves{{0, 3, 4}}, {{0, 5, -1}}, {{0, 8, 5}, {0, 9, 5}}, {{1, 8, 5}, {1, 9, 4}}}) {
    Cache cache(KvFormat::kBf16);
    EXPECT_THROW(reference::compact_kv(cache.params(moves)), FatalError);
    on_every_cpu([&](const cpu::RowOps& ops, ThreadPool& pool) {
      EXPECT_THROW(cpu::compact_kv(cache.params(moves), ops, pool), FatalError);
    });
  }
}

}  // namespace
}  // namespace paceline::kernels
