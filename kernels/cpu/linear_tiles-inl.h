// Products of a tile of rows and column vectors, in terms of one instruction set's vectors: what
// all instruction sets share. How they take dot products is in linear_products-inl.h and
// linear_amx-inl.h. Included inside the namespace and the target region of a source file after its
// vector ops; has no include guard for that reason.
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

// One group of a tile's quantized rows, which lie in blocks of RowBlock.
template <int Group, int RowBlock = kRowBlock>
struct QuantizedRows {
  const std::byte* q;
  const std::byte* scales;

  template <int V>
  QuantizedRows(const TileOperands<V>& tile, std::size_t group)
      : q(tile.in + group * block_group_bytes(Group, RowBlock)),
        scales(tile.in_scale + group * block_group_bytes(Group, RowBlock)) {}
  const std::int8_t* row(int r) const {
    return reinterpret_cast<const std::int8_t*>(q) + r * Group;
  }
  const float* scale(int r) const { return reinterpret_cast<const float*>(scales) + r; }
  template <typename T>
  const T* term(int r) const {
    return reinterpret_cast<const T*>(scales) + RowBlock + r;
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

// What a group adds to the chains of V column vectors, once its dot products are known.
template <int V>
struct Int4Step {
  static constexpr std::size_t kGroupBytes = 320;  // of a panel
  Vec scale[V];
  Vec minimum[V];

  HWY_INLINE Int4Step(const TileOperands<V>& tile, std::size_t group) {
    PACELINE_UNROLL
    for (int v = 0; v < V; ++v) {
      scale[v] = load_fp16(tile.halves(v, group * kGroupBytes + 256));
      minimum[v] = load_fp16(tile.halves(v, group * kGroupBytes + 288));
    }
  }
  template <typename Rows>
  HWY_INLINE void add(const Rows& in, int r, const IVec (&dot)[V], Vec (&acc)[V]) const {
    const Vec in_scale = broadcast(in.scale(r));
    const Vec term = broadcast(in.template term<float>(r));
    PACELINE_UNROLL
    for (int v = 0; v < V; ++v) {
      acc[v] = fma(to_float(dot[v]), mul(in_scale, scale[v]), acc[v]);
      acc[v] = fma(term, minimum[v], acc[v]);
    }
  }
};

template <int V>
struct Int8GroupStep {
  static constexpr std::size_t kGroupBytes = 512;
  Vec scale[V];

  HWY_INLINE Int8GroupStep(const TileOperands<V>& tile, std::size_t group) {
    PACELINE_UNROLL
    for (int v = 0; v < V; ++v) {
      scale[v] = load_fp16(tile.halves(v, tile.weights->scale_offset + group * kPanel * 2));
    }
  }
  template <typename Rows>
  HWY_INLINE void add(const Rows& in, int r, const IVec (&dot)[V], Vec (&acc)[V]) const {
    const Vec in_scale = broadcast(in.scale(r));
    PACELINE_UNROLL
    for (int v = 0; v < V; ++v) {
      acc[v] = fma(to_float(dot[v]), mul(in_scale, scale[v]), acc[v]);
    }
  }
};

template <int V>
struct Int8ChannelStep {
  static constexpr std::size_t kGroupBytes = 1024;

  HWY_INLINE Int8ChannelStep(const TileOperands<V>&, std::size_t) {}
  template <typename Rows>
  HWY_INLINE void add(const Rows& in, int r, const IVec (&dot)[V], Vec (&acc)[V]) const {
    const Vec in_scale = broadcast(in.scale(r));
    PACELINE_UNROLL
    for (int v = 0; v < V; ++v) acc[v] = fma(to_float(dot[v]), in_scale, acc[v]);
  }
};

// The chains of a segment, times their outputs' scales.
template <int R, int V>
HWY_INLINE void scale_channels(const TileOperands<V>& tile, Accumulators<R, V>& acc) {
  PACELINE_UNROLL
  for (int v = 0; v < V; ++v) {
    const Vec scale =
        load(reinterpret_cast<const float*>(tile.panels[v] + tile.weights->scale_offset) +
             tile.lanes[v]);
    PACELINE_UNROLL
    for (int r = 0; r < R; ++r) acc[r][v] = mul(acc[r][v], scale);
  }
}

// The rows of a tile.
struct TilePlace {
  std::int64_t row;  // the first
  std::int64_t block;
  std::int64_t lane;  // in the block
  std::int64_t rows;
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
    tile.in_scale =
        block + static_cast<std::size_t>(task.layout.row_block) * group + lane * sizeof(float);
  } else {
    tile.in = task.in + static_cast<std::size_t>(place.row) * task.layout.row_bytes;
  }
  tile.layout = &task.layout;
  tile.weights = &task.weight->layout();
  return tile;
}

// Writes a tile's partial sum o. A product that fills rows up computes R of them always.
template <typename Product, int R, int V>
HWY_INLINE void store_tile(const ProductTask& task, const TilePlace& place, std::int64_t first,
                           std::int64_t o, const Accumulators<R, V>& acc) {
  const std::int64_t n = task.weight->rows();
  float* out = task.out + (o * task.row_count + place.row) * n + first * kLanes;
  const std::int64_t left = n - first * kLanes;
  const std::int64_t rows = Product::kFillsRows ? place.rows : R;
  PACELINE_UNROLL
  for (int v = 0; v < V; ++v) {
    if (left >= (v + 1) * kLanes) {
      PACELINE_UNROLL
      for (int r = 0; r < R; ++r) {
        if (r < rows) store(out + r * n + v * kLanes, acc[r][v]);
      }
    } else if (left > v * kLanes) {
      PACELINE_UNROLL
      for (int r = 0; r < R; ++r) {
        if (r >= rows) continue;
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
      store_tile<Product, R, V>(task, place, first, depth, acc);
      break;
    }
    PACELINE_UNROLL
    for (int r = 0; r < R; ++r) {
      PACELINE_UNROLL
      for (int v = 0; v < V; ++v) stack[depth][r][v] = acc[r][v];
    }
    ++depth;
  }
  for (int o = 0; o < depth; ++o) store_tile<Product, R, V>(task, place, first, o, stack[o]);
}

// kernels/core/quantize.h in vectors.
void quantize(const QuantizeTask& task) {
  const QuantizedLayout& layout = task.layout;
  const std::int64_t block_index = block_of_row(layout, task.row_count, task.row);
  const auto lane =
      static_cast<std::size_t>(task.row - block_rows(layout, task.row_count, block_index).begin);
  std::byte* out = task.out + static_cast<std::size_t>(block_index) * layout.block_bytes;
  const auto size = static_cast<std::size_t>(layout.group);
  for (std::int64_t g = task.groups.begin; g < task.groups.end; ++g) {
    std::byte* block =
        out + static_cast<std::size_t>(g) * block_group_bytes(layout.group, layout.row_block);
    auto* q = reinterpret_cast<std::int8_t*>(block + lane * size);
    const auto row_block = static_cast<std::size_t>(layout.row_block);
    auto* scales = reinterpret_cast<float*>(block + row_block * size);
    const float* group = task.in + g * layout.group;
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
    std::memcpy(scales + row_block + lane,
                task.format == WeightFormat::kInt4Group ? static_cast<const void*>(&term) : &undo,
                4);
  }
}
