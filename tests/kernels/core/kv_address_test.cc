#include "kernels/core/kv_address.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace paceline::kernels {
namespace {

constexpr std::int32_t kPages[] = {0, 1, 2};
constexpr PageTable kTable{kPages, 3};

KvPool pool_of(KvFormat format) {
  return {.format = format,
          .num_layers = 2,
          .num_heads = 3,
          .page_size = 16,
          .head_dim = 6,
          .num_pages = 3};
}

TEST(KvAddress, PageBytes) {
  EXPECT_EQ(page_bytes(pool_of(KvFormat::kFp32)), 2 * 2 * 3 * 16 * 6 * 4);
  EXPECT_EQ(page_bytes(pool_of(KvFormat::kBf16)), 2 * 2 * 3 * 16 * 6 * 2);
  EXPECT_EQ(page_bytes(pool_of(KvFormat::kInt8)), 2 * 2 * 3 * 16 * (6 + 4));
}

// Elements and scales together fill the pages, and no byte has two owners.
TEST(KvAddress, EveryByteBelongsToOneKeyOrValue) {
  for (const KvFormat format : {KvFormat::kFp32, KvFormat::kBf16, KvFormat::kInt8}) {
    SCOPED_TRACE(std::string(format_name(format)));
    KvPool pool = pool_of(format);
    std::vector<std::byte> bytes(3 * page_bytes(pool));
    pool.data = bytes.data();
    std::vector<int> owners(bytes.size());
    const auto own = [&](std::size_t begin, std::size_t count) {
      for (std::size_t i = begin; i < begin + count; ++i) ++owners.at(i);
    };
    for (std::int32_t slot = 0; slot < 48; ++slot) {
      for (int layer = 0; layer < 2; ++layer) {
        for (const KvPart part : {KvPart::kKey, KvPart::kValue}) {
          for (int head = 0; head < 3; ++head) {
            const std::int64_t offset = kv_offset(pool, kTable, 0, slot, layer, part, head);
            own(static_cast<std::size_t>(offset) * element_bytes(format),
                6 * element_bytes(format));
            if (format != KvFormat::kInt8) continue;
            const auto* scale = reinterpret_cast<const std::byte*>(&kv_scale(pool, offset, slot));
            own(static_cast<std::size_t>(scale - pool.data), sizeof(float));
          }
        }
      }
    }
    EXPECT_EQ(owners, std::vector<int>(bytes.size(), 1));
  }
}

}  // namespace
}  // namespace paceline::kernels
