#include "runtime/engine/packed_batch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace paceline::runtime {
namespace {

using Ids = std::vector<std::int32_t>;

/// Of so many rows, the last ones with logits.
PackedBatch batch_of(std::int32_t rows, std::int32_t sampled) {
  PackedBatch batch;
  for (std::int32_t row = 0; row < rows; ++row) {
    batch.tokens.push_back(100 + row);
    batch.positions.push_back(row);
    batch.rows.push_back({.position = row, .slot = row, .base = row + 1});
  }
  for (std::int32_t i = 0; i < sampled; ++i) {
    batch.sampled_rows.push_back(rows - sampled + i);
    batch.sampling.push_back({.index = static_cast<std::uint64_t>(i)});
    batch.tree_tokens.push_back(i);
    batch.tree_parents.push_back(i - 1);
  }
  return batch;
}

// 33 rows become 36, 17 with logits 18, by more of the last one.
TEST(Pad, RepeatsTheLastRow) {
  PackedBatch batch = batch_of(33, 17);
  const PackedBatch before = batch;
  pad(batch, 1000, 1000);
  ASSERT_EQ(batch.size(), 36);
  EXPECT_EQ(batch.positions.size(), 36u);
  EXPECT_EQ(batch.rows.size(), 36u);
  EXPECT_TRUE(std::equal(before.tokens.begin(), before.tokens.end(), batch.tokens.begin()));
  EXPECT_EQ(Ids(batch.tokens.end() - 3, batch.tokens.end()), (Ids{132, 132, 132}));
  for (std::size_t row = 33; row < 36; ++row) {
    EXPECT_EQ(batch.positions[row], 32);
    EXPECT_EQ(batch.rows[row].slot, 32);
    EXPECT_EQ(batch.rows[row].base, 33);
  }
  ASSERT_EQ(batch.sampled_rows.size(), 18u);
  EXPECT_EQ(batch.sampled_rows[17], 32);
  EXPECT_EQ(batch.sampling[17].index, 16u);
  EXPECT_EQ(batch.tree_tokens.size(), 18u);
  EXPECT_EQ(batch.tree_parents.size(), 18u);
}

TEST(Pad, AddsAtMostAnEighthAndKeepsToTheLimits) {
  std::set<std::int64_t> sizes;
  for (std::int32_t rows = 1; rows <= 512; ++rows) {
    PackedBatch batch = batch_of(rows, rows);
    pad(batch, 500, 200);
    EXPECT_GE(batch.size(), rows);
    EXPECT_LE(batch.size(), std::max<std::int64_t>(rows, std::min(rows + rows / 8, 500)));
    EXPECT_LE(std::ssize(batch.sampled_rows), std::max(rows, 200));
    if (rows <= 16) {
      EXPECT_EQ(batch.size(), rows);
    }
    if (rows <= 500) sizes.insert(batch.size());
  }
  EXPECT_EQ(sizes.size(), 16u + 5 * 8);  // 16 and eight up to each power of two; 500 for 512
}

TEST(Pad, WithoutRowsThereIsNothingToRepeat) {
  PackedBatch prompt = batch_of(40, 0);
  pad(prompt, 1000, 1000);
  EXPECT_EQ(prompt.size(), 40);
  EXPECT_TRUE(prompt.sampled_rows.empty());
  PackedBatch empty;
  pad(empty, 1000, 1000);
  EXPECT_EQ(empty.size(), 0);
}

}  // namespace
}  // namespace paceline::runtime
