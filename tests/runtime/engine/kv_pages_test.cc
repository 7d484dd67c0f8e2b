#include "runtime/engine/kv_pages.h"

#include <gtest/gtest.h>

#include "kernels/core/error.h"

namespace paceline::runtime {
namespace {

TEST(KvPages, HandsOutTheLowestFirstAndTheLastFreedAgain) {
  KvPages pages(4);
  EXPECT_EQ(pages.acquire(), 0);
  EXPECT_EQ(pages.acquire(), 1);
  EXPECT_EQ(pages.acquire(), 2);
  pages.release(1);
  EXPECT_EQ(pages.free_pages(), 2);
  EXPECT_EQ(pages.acquire(), 1);
  EXPECT_EQ(pages.acquire(), 3);
  EXPECT_THROW(pages.acquire(), FatalError);
}

TEST(KvPages, ASharedPageIsFreeOnlyAfterItsLastRelease) {
  KvPages pages(1);
  const auto page = pages.acquire();
  pages.share(page);
  pages.release(page);
  EXPECT_EQ(pages.free_pages(), 0);
  pages.release(page);
  EXPECT_EQ(pages.free_pages(), 1);
  EXPECT_THROW(pages.release(page), FatalError);
  EXPECT_THROW(pages.share(page), FatalError);
}

}  // namespace
}  // namespace paceline::runtime
