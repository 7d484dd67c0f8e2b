// Products of a tile of rows and column vectors, in terms of one instruction set's vectors.
// Included inside the namespace and the target region of a source file after its vector ops and
// its integer dot products; has no include guard for that reason.
//
// A tile holds one vector of accumulators per row and column vector: each lane is one output's
// chain, so the tile's shape changes which chains run side by side but not what any of them adds.

// Loops over a tile are unrolled whole, so that its accumulators are registers.
#ifdef __clang__
#define PACELINE_UNROLL _Pragma("unroll")
#else
#define PACELINE_UNROLL _Pragma("GCC unroll 16")
#endif

// What a tile multiplies: R rows by V column vectors of kLanes outputs each.
template <int V>
struct TileOperands {
  const std::byte* panels[V];
  int lanes[V];         // first lane of the vector in its panel
  const std::byte* in;  // the tile's first row; of quantized rows, its part of the first group
  const std::byte* in_scale;  // of quantized rows: scale of the tile's first row, first group
  const QuantizedLayout* layout;
  const PanelLayout* weights;

  const float* plain_row(int r) const {
    return reinterpret_cast<const float*>(in + static_cast<std::size_t>(r) * layout->row_bytes);
  }
  const std::uint16_t* halves(int v, std::size_t offset) const {
    return reinterpret_cast<const std::uint16_t*>(panels[v] + offset) + lanes[v];
  }
};

// One group of a tile's quantized rows.
template <int Group>
struct QuantizedRows {
  const std::byte* q;
  const std::byte* scales;

  template <int V>
  QuantizedRows(const TileOperands<V>& tile, std::size_t group)
      : q(tile.in + group * block_group_bytes(Group)),
        scales(tile.in_scale + group * block_group_bytes(Group)) {}
  const std::int8_t* row(int r) const {
    return reinterpret_cast<const std::int8_t*>(q) + r * Group;
  }
  const float* scale(int r) const { return reinterpret_cast<const float*>(scales) + r; }
  template <typename T>
  const T* term(int r) const {
    return reinterpret_cast<const T*>(scales) + kRowBlock + r;
  }
};

template <int R, int V>
using Accumulators = Vec[R][V];

// Asks for weights that are soon to be read: few rows' arithmetic hides no memory, and the hardware
// stops asking at every page.
template <std::size_t Bytes>
HWY_INLINE void prefetch(const std::byte* weights) {
  PACELINE_UNROLL
  for (std::size_t at = 0; at < Bytes; at += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(weights) + at, _MM_HINT_T0);
  }
}

// A group of integer weights, Bytes a panel. One panel is read front to back, and what is asked for
// runs on into the next. Panels that are read side by side are no stream: while a tile reads its
// own, those of the tile that comes next are asked for front to back.
template <std::size_t Bytes, int V>
HWY_INLINE void prefetch_group(const TileOperands<V>& tile, std::size_t group) {
  constexpr std::size_t kPanels = V * kLanes / kPanel;
  if constexpr (kPanels <= 1) {
    constexpr std::size_t kAhead = 8192;
    prefetch<Bytes>(tile.panels[0] + group * Bytes + kAhead);
  } else {
    constexpr std::size_t kLines = (kPanels * Bytes + 63) / 64 * 64;
    prefetch<kLines>(tile.panels[0] + kPanels * tile.weights->bytes + group * kLines);
  }
}

// One input's float weights, Bytes a panel. A tile of them is larger than the nearest cache, so
// each panel is asked for by itself, a page ahead and over its end into the next tile's.
template <std::size_t Bytes, int V>
HWY_INLINE void prefetch_input(const TileOperands<V>& tile, std::size_t input) {
  constexpr std::size_t kAhead = 4096;
  constexpr std::size_t kPanels = V * kLanes <= kPanel ? 1 : V * kLanes / kPanel;
  std::size_t at = input * Bytes + kAhead;
  if (at >= tile.weights->bytes) at += (kPanels - 1) * tile.weights->bytes;
  PACELINE_UNROLL
  for (std::size_t panel = 0; panel < kPanels; ++panel) {
    prefetch<Bytes>(tile.panels[panel * kPanel / kLanes] + at);
  }
}

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
  static constexpr int kStreamedRows = 2;

  template <int R, int V>
  static void accumulate(const TileOperands<V>& tile, IndexRange cols, Accumulators<R, V>& acc) {
    constexpr std::size_t kGroupBytes = 320;
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
      Vec scale[V];
      Vec minimum[V];
      PACELINE_UNROLL
      for (int v = 0; v < V; ++v) {
        scale[v] = load_fp16(tile.halves(v, group * kGroupBytes + 256));
        minimum[v] = load_fp16(tile.halves(v, group * kGroupBytes + 288));
      }
      PACELINE_UNROLL
      for (int r = 0; r < R; ++r) {
        const Vec in_scale = broadcast(in.scale(r));
        const Vec term = broadcast(in.template term<float>(r));
        PACELINE_UNROLL
        for (int v = 0; v < V; ++v) {
          acc[r][v] = fma(to_float(sum_int4(dot[r][v])), mul(in_scale, scale[v]), acc[r][v]);
          acc[r][v] = fma(term, minimum[v], acc[r][v]);
        }
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
  static constexpr int kStreamedRows = 8;

  template <int R, int V>
  static void accumulate(const TileOperands<V>& tile, IndexRange cols, Accumulators<R, V>& acc) {
    for (std::int64_t g = cols.begin / kWeightGroup; g < cols.end / kWeightGroup; ++g) {
      const auto group = static_cast<std::size_t>(g);
      prefetch_group<512>(tile, group);
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
      Vec scale[V];
      PACELINE_UNROLL
      for (int v = 0; v < V; ++v) {
        scale[v] = load_fp16(tile.halves(v, tile.weights->scale_offset + group * kPanel * 2));
      }
      PACELINE_UNROLL
      for (int r = 0; r < R; ++r) {
        const Vec in_scale = broadcast(in.scale(r));
        PACELINE_UNROLL
        for (int v = 0; v < V; ++v) {
          acc[r][v] = fma(to_float(dot[r][v]), mul(in_scale, scale[v]), acc[r][v]);
        }
      }
    }
  }
  template <int R, int V>
  static void finish(const TileOperands<V>&, Accumulators<R, V>&) {}
};

struct Int8ChannelProduct {
  static constexpr bool kInteger = true;
  static constexpr int kStreamedRows = 8;

  template <int R, int V>
  static void accumulate(const TileOperands<V>& tile, IndexRange cols, Accumulators<R, V>& acc) {
    for (std::int64_t g = cols.begin / 64; g < (cols.end + 63) / 64; ++g) {
      const auto group = static_cast<std::size_t>(g);
      prefetch_group<1024>(tile, group);
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
      PACELINE_UNROLL
      for (int r = 0; r < R; ++r) {
        const Vec in_scale = broadcast(in.scale(r));
        PACELINE_UNROLL
        for (int v = 0; v < V; ++v) acc[r][v] = fma(to_float(dot[r][v]), in_scale, acc[r][v]);
      }
    }
  }
  template <int R, int V>
  static void finish(const TileOperands<V>& tile, Accumulators<R, V>& acc) {
    PACELINE_UNROLL
    for (int v = 0; v < V; ++v) {
      const Vec scale =
          load(reinterpret_cast<const float*>(tile.panels[v] + tile.weights->scale_offset) +
               tile.lanes[v]);
      PACELINE_UNROLL
      for (int r = 0; r < R; ++r) acc[r][v] = mul(acc[r][v], scale);
    }
  }
};

// Where a tile's rows begin.
struct TilePlace {
  std::int64_t row;
  std::int64_t block;
  std::int64_t lane;  // in the block
};

template <typename Product, int V>
HWY_INLINE TileOperands<V> tile_operands(const ProductTask& task, const TilePlace& place,
                                         std::int64_t first) {
  constexpr int kVectorsPerPanel = kPanel / kLanes;
  TileOperands<V> tile;
  PACELINE_UNROLL
  for (int v = 0; v < V; ++v) {
    tile.panels[v] = task.weight->panel((first + v) / kVectorsPerPanel);
    tile.lanes[v] = static_cast<int>((first + v) % kVectorsPerPanel) * kLanes;
  }
  if constexpr (Product::kInteger) {
    const auto lane = static_cast<std::size_t>(place.lane);
    const auto group = static_cast<std::size_t>(task.layout.group);
    const std::byte* block =
        task.in + static_cast<std::size_t>(place.block) * task.layout.block_bytes;
    tile.in = block + lane * group;
    tile.in_scale = block + kRowBlock * group + lane * sizeof(float);
  } else {
    tile.in = task.in + static_cast<std::size_t>(place.row) * task.layout.row_bytes;
  }
  tile.layout = &task.layout;
  tile.weights = &task.weight->layout();
  return tile;
}

// Writes a tile's partial sum o.
template <int R, int V>
HWY_INLINE void store_tile(const ProductTask& task, std::int64_t row, std::int64_t first,
                           std::int64_t o, const Accumulators<R, V>& acc) {
  const std::int64_t n = task.weight->rows();
  float* out = task.out + (o * task.row_count + row) * n + first * kLanes;
  const std::int64_t left = n - first * kLanes;
  PACELINE_UNROLL
  for (int v = 0; v < V; ++v) {
    if (left >= (v + 1) * kLanes) {
      PACELINE_UNROLL
      for (int r = 0; r < R; ++r) store(out + r * n + v * kLanes, acc[r][v]);
    } else if (left > v * kLanes) {
      PACELINE_UNROLL
      for (int r = 0; r < R; ++r) {
        store_first(out + r * n + v * kLanes, acc[r][v], static_cast<int>(left - v * kLanes));
      }
    }
  }
}

// R rows times column vectors [first, first + V), cut and added as the reduction says.
template <typename Product, int R, int V>
void multiply_tile(const ProductTask& task, const TilePlace& place, std::int64_t first) {
  const TileOperands<V> tile = tile_operands<Product, V>(task, place, first);
  const std::vector<Reduction::Segment>& segments = task.weight->reduction().segments;
  Vec stack[kMaxReductionDepth][R][V];
  int depth = 0;
  for (std::size_t s = 0; s < segments.size(); ++s) {
    Vec acc[R][V];
    PACELINE_UNROLL
    for (int r = 0; r < R; ++r) {
      PACELINE_UNROLL
      for (int v = 0; v < V; ++v) acc[r][v] = zero();
    }
    if (segments[s].cols.size() > 0) {
      Product::template accumulate<R, V>(tile, segments[s].cols, acc);
      Product::template finish<R, V>(tile, acc);
    }
    for (int merge = 0; merge < segments[s].merges; ++merge) {
      --depth;
      PACELINE_UNROLL
      for (int r = 0; r < R; ++r) {
        PACELINE_UNROLL
        for (int v = 0; v < V; ++v) acc[r][v] = add(stack[depth][r][v], acc[r][v]);
      }
    }
    if (s + 1 == segments.size()) {  // the top of the stack is not put there just to be read
      store_tile<R, V>(task, place.row, first, depth, acc);
      break;
    }
    PACELINE_UNROLL
    for (int r = 0; r < R; ++r) {
      PACELINE_UNROLL
      for (int v = 0; v < V; ++v) stack[depth][r][v] = acc[r][v];
    }
    ++depth;
  }
  for (int o = 0; o < depth; ++o) store_tile<R, V>(task, place.row, first, o, stack[o]);
}

// Column vectors that a tile of so many rows takes: of float weights as many chains as hide their
// latency and fit the registers, of integer weights two, which share the rows' broadcasts. But a
// product of no more than kStreamedRows rows waits for integer weights, which memory gives fastest
// one panel at a time.
template <typename Product>
constexpr int tile_vectors(int rows) {
  if (Product::kInteger) return 2;
  return kRegisters / 2 / rows >= 4 ? 4 : 2;
}

// `rows` rows, at most R, times column vectors [begin, end).
template <typename Product, int R>
void multiply_rows(const ProductTask& task, const TilePlace& place, std::int64_t rows,
                   IndexRange vectors) {
  if constexpr (R > 1) {
    if (rows < R) return multiply_rows<Product, R - 1>(task, place, rows, vectors);
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
      const IndexRange rows = block_rows(task.row_count, block);
      const std::int64_t tiles = (rows.size() + kTileRows - 1) / kTileRows;
      for (std::int64_t tile = 0; tile < tiles; ++tile) {
        const IndexRange lanes = part_of(rows.size(), tile, tiles);
        multiply_rows<Product, kTileRows>(task, {rows.begin + lanes.begin, block, lanes.begin},
                                          lanes.size(), vectors);
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

// kernels/core/quantize.h in vectors. Row `lane` of the block `out`.
void quantize_row(const QuantizeTask& task, const float* in, std::byte* out, std::size_t lane) {
  const QuantizedLayout& layout = task.layout;
  const auto size = static_cast<std::size_t>(layout.group);
  for (std::int64_t g = 0; g < layout.groups; ++g) {
    std::byte* block = out + static_cast<std::size_t>(g) * block_group_bytes(layout.group);
    auto* q = reinterpret_cast<std::int8_t*>(block + lane * size);
    auto* scales = reinterpret_cast<float*>(block + kRowBlock * size);
    const float* group = in + g * layout.group;
    float padded[64];
    const std::int64_t count = task.cols - g * layout.group;
    if (count < layout.group) {
      std::fill(std::copy_n(group, count, padded), padded + layout.group, 0.0f);
      group = padded;
    }
    const GroupScale scale = group_scale(largest_magnitude(group, layout.group));
    std::int32_t sum = 0;
    if (scale.inverse != 0) {
      sum = round_group(group, scale.inverse, layout.group, q);
    } else {
      std::memset(q, 0, size);
    }
    scales[lane] = scale.scale;
    const std::int32_t undo = -128 * sum;
    const float term = scale.scale * static_cast<float>(sum);
    std::memcpy(scales + kRowBlock + lane,
                task.format == WeightFormat::kInt4Group ? static_cast<const void*>(&term) : &undo,
                4);
  }
}

void quantize(const QuantizeTask& task) {
  for (std::int64_t block = task.blocks.begin; block < task.blocks.end; ++block) {
    const IndexRange rows = block_rows(task.row_count, block);
    for (std::int64_t row = rows.begin; row < rows.end; ++row) {
      quantize_row(task, task.in + row * task.cols,
                   task.out + static_cast<std::size_t>(block) * task.layout.block_bytes,
                   static_cast<std::size_t>(row - rows.begin));
    }
  }
}

#undef PACELINE_UNROLL
