// Products whose dot products are vector instructions, for linear_tiles-inl.h, after which, and
// after an instruction set's integer dot products, this is included inside the namespace and the
// target region of a source file; has no include guard for that reason.

struct Fp32Weights {
  using Element = float;
  static Vec widen(const float* from) { return load(from); }
};
struct Bf16Weights {
  using Element = std::uint16_t;
  static Vec widen(const std::uint16_t* from) { return load_bf16(from); }
};
struct Fp16Weights {
  using Element = std::uint16_t;
  static Vec widen(const std::uint16_t* from) { return load_fp16(from); }
};

template <typename Format>
struct DenseProduct : Format {
  static constexpr bool kInteger = false;
  static constexpr bool kFillsRows = false;
  static constexpr int kStreamedRows = 0;

  template <int R, int V>
  static void accumulate(const TileOperands<V>& tile, IndexRange cols, Accumulators<R, V>& acc) {
    const typename Format::Element* weights[V];
    PACELINE_UNROLL
    for (int v = 0; v < V; ++v) {
      weights[v] =
          reinterpret_cast<const typename Format::Element*>(tile.panels[v]) + tile.lanes[v];
    }
    const float* in[R];
    PACELINE_UNROLL
    for (int r = 0; r < R; ++r) in[r] = tile.plain_row(r);
    for (std::int64_t k = cols.begin; k < cols.end; ++k) {
      prefetch_input<kPanel * sizeof(typename Format::Element)>(tile, static_cast<std::size_t>(k));
      Vec w[V];
      PACELINE_UNROLL
      for (int v = 0; v < V; ++v) w[v] = Format::widen(weights[v] + k * kPanel);
      PACELINE_UNROLL
      for (int r = 0; r < R; ++r) {
        const Vec x = broadcast(in[r] + k);
        PACELINE_UNROLL
        for (int v = 0; v < V; ++v) acc[r][v] = fma(x, w[v], acc[r][v]);
      }
    }
  }
  template <int R, int V>
  static void finish(const TileOperands<V>&, Accumulators<R, V>&) {}
};

struct Int4Product {
  static constexpr bool kInteger = true;
  static constexpr bool kFillsRows = false;
  static constexpr int kStreamedRows = 2;

  template <int R, int V>
  static void accumulate(const TileOperands<V>& tile, IndexRange cols, Accumulators<R, V>& acc) {
    constexpr std::size_t kGroupBytes = Int4Step<V>::kGroupBytes;
    for (std::int64_t g = cols.begin / kWeightGroup; g < cols.end / kWeightGroup; ++g) {
      const auto group = static_cast<std::size_t>(g);
      prefetch_group<kGroupBytes>(tile, group);
      const QuantizedRows<kWeightGroup> in(tile, group);
      IVec dot[R][V] = {};
      PACELINE_UNROLL
      for (int i = 0; i < 4; ++i) {
        IVec low[V];
        IVec high[V];
        PACELINE_UNROLL
        for (int v = 0; v < V; ++v) {
          const IVec pair =
              load_bytes(tile.panels[v] + group * kGroupBytes + i * 64 + tile.lanes[v] * kQuad);
          low[v] = low_nibbles(pair);
          high[v] = high_nibbles(pair);
        }
        PACELINE_UNROLL
        for (int r = 0; r < R; ++r) {
          add_quad_int4<V>(low, broadcast_quad(in.row(r) + 2 * i * kQuad), dot[r]);
        }
        PACELINE_UNROLL
        for (int r = 0; r < R; ++r) {
          add_quad_int4<V>(high, broadcast_quad(in.row(r) + (2 * i + 1) * kQuad), dot[r]);
        }
      }
      const Int4Step<V> step(tile, group);
      PACELINE_UNROLL
      for (int r = 0; r < R; ++r) {
        PACELINE_UNROLL
        for (int v = 0; v < V; ++v) dot[r][v] = sum_int4(dot[r][v]);
        step.add(in, r, dot[r], acc[r]);
      }
    }
  }
  template <int R, int V>
  static void finish(const TileOperands<V>&, Accumulators<R, V>&) {}
};

// dot[r][v] += the sum over the `Quads` quads of a group, whose weights begin at bytes[v].
template <int Quads, int R, int V, int Group>
HWY_INLINE void add_dots_int8(const std::byte* const (&bytes)[V], const QuantizedRows<Group>& in,
                              IVec (&dot)[R][V]) {
  PACELINE_UNROLL
  for (int i = 0; i < Quads; ++i) {
    Int8Weights w[V];
    PACELINE_UNROLL
    for (int v = 0; v < V; ++v) w[v] = load_int8_weights(bytes[v] + i * 64);
    PACELINE_UNROLL
    for (int r = 0; r < R; ++r) {
      add_quad_int8<V>(w, broadcast_quad(in.row(r) + i * kQuad), dot[r]);
    }
  }
}

struct Int8GroupProduct {
  static constexpr bool kInteger = true;
  static constexpr bool kFillsRows = false;
  static constexpr int kStreamedRows = 8;

  template <int R, int V>
  static void accumulate(const TileOperands<V>& tile, IndexRange cols, Accumulators<R, V>& acc) {
    for (std::int64_t g = cols.begin / kWeightGroup; g < cols.end / kWeightGroup; ++g) {
      const auto group = static_cast<std::size_t>(g);
      prefetch_group<Int8GroupStep<V>::kGroupBytes>(tile, group);
      const QuantizedRows<kWeightGroup> in(tile, group);
      const std::byte* bytes[V];
      PACELINE_UNROLL
      for (int v = 0; v < V; ++v) bytes[v] = tile.panels[v] + group * 512 + tile.lanes[v] * kQuad;
      IVec dot[R][V];
      PACELINE_UNROLL
      for (int r = 0; r < R; ++r) {
        PACELINE_UNROLL
        for (int v = 0; v < V; ++v) dot[r][v] = start_int8(in.template term<std::int32_t>(r));
      }
      add_dots_int8<8, R, V>(bytes, in, dot);
      const Int8GroupStep<V> step(tile, group);
      PACELINE_UNROLL
      for (int r = 0; r < R; ++r) step.add(in, r, dot[r], acc[r]);
    }
  }
  template <int R, int V>
  static void finish(const TileOperands<V>&, Accumulators<R, V>&) {}
};

struct Int8ChannelProduct {
  static constexpr bool kInteger = true;
  static constexpr bool kFillsRows = false;
  static constexpr int kStreamedRows = 8;

  template <int R, int V>
  static void accumulate(const TileOperands<V>& tile, IndexRange cols, Accumulators<R, V>& acc) {
    for (std::int64_t g = cols.begin / 64; g < (cols.end + 63) / 64; ++g) {
      const auto group = static_cast<std::size_t>(g);
      prefetch_group<Int8ChannelStep<V>::kGroupBytes>(tile, group);
      const QuantizedRows<64> in(tile, group);
      const std::byte* bytes[V];
      PACELINE_UNROLL
      for (int v = 0; v < V; ++v) bytes[v] = tile.panels[v] + group * 1024 + tile.lanes[v] * kQuad;
      IVec dot[R][V];
      PACELINE_UNROLL
      for (int r = 0; r < R; ++r) {
        PACELINE_UNROLL
        for (int v = 0; v < V; ++v) dot[r][v] = start_int8(in.template term<std::int32_t>(r));
      }
      add_dots_int8<16, R, V>(bytes, in, dot);
      const Int8ChannelStep<V> step(tile, group);
      PACELINE_UNROLL
      for (int r = 0; r < R; ++r) step.add(in, r, dot[r], acc[r]);
    }
  }
  template <int R, int V>
  static void finish(const TileOperands<V>& tile, Accumulators<R, V>& acc) {
    scale_channels<R, V>(tile, acc);
  }
};

// Column vectors that a tile of so many rows takes: of float weights as many chains as hide their
// latency and fit the registers, of integer weights two, which share the rows' broadcasts. But a
// product of no more than kStreamedRows rows waits for integer weights, which memory gives fastest
// one panel at a time.
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
    if constexpr (kVectors > 2) {
      for (; at + 2 <= vectors.end; at += 2) multiply_tile<Product, R, 2>(task, place, at);
    }
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

void multiply(const ProductTask& task) {
  switch (task.weight->format()) {
    case WeightFormat::kFp32:
      return multiply_all<DenseProduct<Fp32Weights>>(task);
    case WeightFormat::kBf16:
      return multiply_all<DenseProduct<Bf16Weights>>(task);
    case WeightFormat::kFp16:
      return multiply_all<DenseProduct<Fp16Weights>>(task);
    case WeightFormat::kInt8Channel:
      return multiply_all<Int8ChannelProduct>(task);
    case WeightFormat::kInt8Group:
      return multiply_all<Int8GroupProduct>(task);
    case WeightFormat::kInt4Group:
      return multiply_all<Int4Product>(task);
  }
}
