// How a task's rows and panels are cut into tiles, for products of vector instructions. Included
// inside the namespace and the target region of a source file after linear_tiles-inl.h; has no
// include guard for that reason.

// Column vectors that a tile of so many rows takes: of float weights as many chains as hide their
// latency and fit the registers, of integer weights two, which share the rows' broadcasts. But a
// product of no more than kStreamedRows rows waits for its weights, which memory gives fastest from
// few panels at a time: half as many.
template <typename Product>
constexpr int tile_vectors(int rows) {
  if (Product::kInteger) return 2;
  return kRegisters / 2 / rows >= 4 ? 4 : 2;
}

// The rows of the place, at most R, times column vectors [begin, end).
template <typename Product, int R>
void multiply_rows(const ProductTask& task, const TilePlace& place, IndexRange vectors) {
  if constexpr (R > 1) {
    if (place.rows < R) return multiply_rows<Product, R - 1>(task, place, vectors);
  }
  constexpr int kVectors = tile_vectors<Product>(R);
  constexpr bool kOnePanel = kVectors * kLanes <= kPanel;
  std::int64_t at = vectors.begin;
  if (kOnePanel || task.row_count > Product::kStreamedRows) {
    for (; at + kVectors <= vectors.end; at += kVectors) {
      multiply_tile<Product, R, kVectors>(task, place, at);
    }
  }
  if constexpr (kVectors > 2) {
    for (; at + 2 <= vectors.end; at += 2) multiply_tile<Product, R, 2>(task, place, at);
  }
  for (; at < vectors.end; ++at) multiply_tile<Product, R, 1>(task, place, at);
}

// All of a task: a block of column vectors stays in the cache while all rows pass over it.
template <typename Product>
void multiply_all(const ProductTask& task) {
  constexpr int kVectorsPerPanel = kPanel / kLanes;
  constexpr int kVectorBlock = 4;
  constexpr int kTileRows = kRegisters / 4;
  const std::int64_t end = task.panels.end * kVectorsPerPanel;
  for (std::int64_t at = task.panels.begin * kVectorsPerPanel; at < end; at += kVectorBlock) {
    const IndexRange vectors{at, std::min<std::int64_t>(at + kVectorBlock, end)};
    for (std::int64_t block = task.blocks.begin; block < task.blocks.end; ++block) {
      const IndexRange rows = block_rows(task.layout, task.row_count, block);
      const std::int64_t tiles = (rows.size() + kTileRows - 1) / kTileRows;
      for (std::int64_t tile = 0; tile < tiles; ++tile) {
        const IndexRange lanes = part_of(rows.size(), tile, tiles);
        multiply_rows<Product, kTileRows>(
            task, {rows.begin + lanes.begin, block, lanes.begin, lanes.size()}, vectors);
      }
    }
  }
}
