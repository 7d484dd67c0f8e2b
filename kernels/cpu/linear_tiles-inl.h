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
  int lanes[V];  // first lane of the vector in its panel
  const std::byte* in;
  const QuantizedLayout* layout;
  const PanelLayout* weights;

  template <typename T>
  const T* row(int r, std::size_t offset) const {
    return reinterpret_cast<const T*>(in + static_cast<std::size_t>(r) * layout->row_bytes +
                                      offset);
  }
  const std::uint16_t* halves(int v, std::size_t offset) const {
    return reinterpret_cast<const std::uint16_t*>(panels[v] + offset) + lanes[v];
  }
};

template <int R, int V>
using Accumulators = Vec[R][V];

// Weights are asked for this far ahead: one row's arithmetic hides no memory, and the hardware
// stops asking at every page. It runs on into the panel that comes next.
inline void prefetch(const std::byte* weights, std::size_t bytes) {
  constexpr std::size_t kAhead = 4096;
  PACELINE_UNROLL
  for (std::size_t at = 0; at < bytes; at += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(weights) + kAhead + at, _MM_HINT_T0);
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
    for (int r = 0; r < R; ++r) in[r] = tile.template row<float>(r, 0);
    for (std::int64_t k = cols.begin; k < cols.end; ++k) {
      Vec w[V];
      PACELINE_UNROLL
      for (int v = 0; v < V; ++v) {
        const typename Format::Element* from = weights[v] + k * kPanel;
        prefetch(reinterpret_cast<const std::byte*>(from), 1);
        w[v] = Format::widen(from);
      }
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

  template <int R, int V>
  static void accumulate(const TileOperands<V>& tile, IndexRange cols, Accumulators<R, V>& acc) {
    constexpr std::size_t kGroupBytes = 320;
    for (std::int64_t g = cols.begin / kWeightGroup; g < cols.end / kWeightGroup; ++g) {
      const auto group = static_cast<std::size_t>(g);
      prefetch(tile.panels[0] + group * kGroupBytes, kGroupBytes);
      PACELINE_UNROLL
      for (int v = 0; v < V; ++v) {
        const std::byte* bytes = tile.panels[v] + group * kGroupBytes;
        IVec q[8];
        PACELINE_UNROLL
        for (int i = 0; i < 4; ++i) {
          const IVec pair = load_bytes(bytes + i * 64 + tile.lanes[v] * kQuad);
          q[2 * i] = low_nibbles(pair);
          q[2 * i + 1] = high_nibbles(pair);
        }
        const Vec scale = load_fp16(tile.halves(v, group * kGroupBytes + 256));
        const Vec minimum = load_fp16(tile.halves(v, group * kGroupBytes + 288));
        PACELINE_UNROLL
        for (int r = 0; r < R; ++r) {
          const Vec dot = to_float(dot_int4(q, tile.template row<std::int8_t>(r, group * 32)));
          const float* in_scale = tile.template row<float>(r, tile.layout->scale_offset);
          const float* term = tile.template row<float>(r, tile.layout->term_offset);
          acc[r][v] = fma(dot, mul(broadcast(in_scale + g), scale), acc[r][v]);
          acc[r][v] = fma(broadcast(term + g), minimum, acc[r][v]);
        }
      }
    }
  }
  template <int R, int V>
  static void finish(const TileOperands<V>&, Accumulators<R, V>&) {}
};

struct Int8GroupProduct {
  static constexpr bool kInteger = true;

  template <int R, int V>
  static void accumulate(const TileOperands<V>& tile, IndexRange cols, Accumulators<R, V>& acc) {
    for (std::int64_t g = cols.begin / kWeightGroup; g < cols.end / kWeightGroup; ++g) {
      const auto group = static_cast<std::size_t>(g);
      prefetch(tile.panels[0] + group * 512, 512);
      PACELINE_UNROLL
      for (int v = 0; v < V; ++v) {
        const std::byte* bytes = tile.panels[v] + group * 512 + tile.lanes[v] * kQuad;
        IVec q[8];
        PACELINE_UNROLL
        for (int i = 0; i < 8; ++i) q[i] = load_int8_weights(bytes + i * 64);
        const Vec scale =
            load_fp16(tile.halves(v, tile.weights->scale_offset + group * kPanel * 2));
        PACELINE_UNROLL
        for (int r = 0; r < R; ++r) {
          const std::int32_t* term =
              tile.template row<std::int32_t>(r, tile.layout->term_offset) + g;
          const float* in_scale = tile.template row<float>(r, tile.layout->scale_offset);
          const IVec dot =
              add_dot_int8(start_int8(term), q, tile.template row<std::int8_t>(r, group * 32));
          acc[r][v] = fma(to_float(dot), mul(broadcast(in_scale + g), scale), acc[r][v]);
        }
      }
    }
  }
  template <int R, int V>
  static void finish(const TileOperands<V>&, Accumulators<R, V>&) {}
};

struct Int8ChannelProduct {
  static constexpr bool kInteger = true;

  template <int R, int V>
  static void accumulate(const TileOperands<V>& tile, IndexRange cols, Accumulators<R, V>& acc) {
    for (std::int64_t g = cols.begin / 64; g < (cols.end + 63) / 64; ++g) {
      const auto group = static_cast<std::size_t>(g);
      prefetch(tile.panels[0] + group * 1024, 1024);
      PACELINE_UNROLL
      for (int v = 0; v < V; ++v) {
        const std::byte* bytes = tile.panels[v] + group * 1024 + tile.lanes[v] * kQuad;
        IVec dot[R];
        PACELINE_UNROLL
        for (int r = 0; r < R; ++r) {
          dot[r] = start_int8(tile.template row<std::int32_t>(r, tile.layout->term_offset) + g);
        }
        PACELINE_UNROLL
        for (std::size_t half = 0; half < 2; ++half) {
          IVec q[8];
          PACELINE_UNROLL
          for (std::size_t i = 0; i < 8; ++i) q[i] = load_int8_weights(bytes + half * 512 + i * 64);
          PACELINE_UNROLL
          for (int r = 0; r < R; ++r) {
            dot[r] =
                add_dot_int8(dot[r], q, tile.template row<std::int8_t>(r, group * 64 + half * 32));
          }
        }
        PACELINE_UNROLL
        for (int r = 0; r < R; ++r) {
          const float* in_scale = tile.template row<float>(r, tile.layout->scale_offset);
          acc[r][v] = fma(to_float(dot[r]), broadcast(in_scale + g), acc[r][v]);
        }
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

// Rows [row, row + R) times column vectors [first, first + V), cut and added as the reduction says.
template <typename Product, int R, int V>
void multiply_tile(const ProductTask& task, std::int64_t row, std::int64_t first) {
  constexpr int kVectorsPerPanel = kPanel / kLanes;
  TileOperands<V> tile;
  PACELINE_UNROLL
  for (int v = 0; v < V; ++v) {
    tile.panels[v] = task.weight->panel((first + v) / kVectorsPerPanel);
    tile.lanes[v] = static_cast<int>((first + v) % kVectorsPerPanel) * kLanes;
  }
  tile.in = task.in + static_cast<std::size_t>(row) * task.layout.row_bytes;
  tile.layout = &task.layout;
  tile.weights = &task.weight->layout();

  alignas(64) float stack[kMaxReductionDepth][R][V][kLanes];
  int depth = 0;
  for (const Reduction::Segment& segment : task.weight->reduction().segments) {
    Vec acc[R][V];
    PACELINE_UNROLL
    for (int r = 0; r < R; ++r) {
      PACELINE_UNROLL
      for (int v = 0; v < V; ++v) acc[r][v] = zero();
    }
    if (segment.cols.size() > 0) {
      Product::template accumulate<R, V>(tile, segment.cols, acc);
      Product::template finish<R, V>(tile, acc);
    }
    for (int merge = 0; merge < segment.merges; ++merge) {
      --depth;
      PACELINE_UNROLL
      for (int r = 0; r < R; ++r) {
        PACELINE_UNROLL
        for (int v = 0; v < V; ++v) acc[r][v] = add(load(stack[depth][r][v]), acc[r][v]);
      }
    }
    PACELINE_UNROLL
    for (int r = 0; r < R; ++r) {
      PACELINE_UNROLL
      for (int v = 0; v < V; ++v) store(stack[depth][r][v], acc[r][v]);
    }
    ++depth;
  }

  const std::int64_t n = task.weight->rows();
  for (int o = 0; o < depth; ++o) {
    for (int r = 0; r < R; ++r) {
      float* out = task.out + (o * task.row_count + row + r) * n;
      for (int v = 0; v < V; ++v) {
        const std::int64_t at = (first + v) * kLanes;
        const Vec sum = load(stack[o][r][v]);
        if (at + kLanes <= n) {
          store(out + at, sum);
        } else if (at < n) {
          store_first(out + at, sum, static_cast<int>(n - at));
        }
      }
    }
  }
}

// Column vectors that a tile of so many rows takes. One row waits for memory, which likes few
// panels at a time; two hide the latency of its float chains. More rows take as many chains as fit
// the registers. An integer product has work enough in one vector, unpacked once for all rows.
template <typename Product>
constexpr int tile_vectors(int rows) {
  constexpr int kVectorsPerPanel = kPanel / kLanes;
  if (Product::kInteger) return rows == 1 ? kVectorsPerPanel : 1;
  if (rows == 1) return 2 * kVectorsPerPanel;
  return kRegisters / 2 / rows >= 4 ? 4 : 2;
}

// R rows times column vectors [begin, end).
template <typename Product, int R>
void multiply_rows(const ProductTask& task, std::int64_t row, IndexRange vectors) {
  constexpr int kVectors = tile_vectors<Product>(R);
  std::int64_t at = vectors.begin;
  for (; at + kVectors <= vectors.end; at += kVectors) {
    multiply_tile<Product, R, kVectors>(task, row, at);
  }
  if constexpr (kVectors > 2) {
    for (; at + 2 <= vectors.end; at += 2) multiply_tile<Product, R, 2>(task, row, at);
  }
  for (; at < vectors.end; ++at) multiply_tile<Product, R, 1>(task, row, at);
}

// All of a task: a block of column vectors stays in the cache while all rows pass over it.
template <typename Product>
void multiply_all(const ProductTask& task) {
  constexpr int kVectorsPerPanel = kPanel / kLanes;
  constexpr int kBlock = 4;
  const std::int64_t end = task.panels.end * kVectorsPerPanel;
  for (std::int64_t at = task.panels.begin * kVectorsPerPanel; at < end; at += kBlock) {
    const IndexRange block{at, std::min<std::int64_t>(at + kBlock, end)};
    std::int64_t row = task.rows.begin;
    if constexpr (kRegisters >= 32) {
      for (; row + 8 <= task.rows.end; row += 8) multiply_rows<Product, 8>(task, row, block);
    }
    for (; row + 4 <= task.rows.end; row += 4) multiply_rows<Product, 4>(task, row, block);
    for (; row + 2 <= task.rows.end; row += 2) multiply_rows<Product, 2>(task, row, block);
    for (; row < task.rows.end; ++row) multiply_rows<Product, 1>(task, row, block);
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

// kernels/core/quantize.h in vectors.
void quantize_row(const QuantizeTask& task, const float* in, std::byte* out) {
  const QuantizedLayout& layout = task.layout;
  auto* scales = reinterpret_cast<float*>(out + layout.scale_offset);
  std::byte* terms = out + layout.term_offset;
  for (std::int64_t g = 0; g < layout.groups; ++g) {
    auto* q = reinterpret_cast<std::int8_t*>(out) + g * layout.group;
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
      std::memset(q, 0, static_cast<std::size_t>(layout.group));
    }
    scales[g] = scale.scale;
    const std::int32_t undo = -128 * sum;
    const float term = scale.scale * static_cast<float>(sum);
    std::memcpy(terms + g * 4,
                task.format == WeightFormat::kInt4Group ? static_cast<const void*>(&term) : &undo,
                4);
  }
}

void quantize(const QuantizeTask& task) {
  for (std::int64_t row = task.rows.begin; row < task.rows.end; ++row) {
    quantize_row(task, task.in + row * task.cols,
                 task.out + static_cast<std::size_t>(row) * task.layout.row_bytes);
  }
}

#undef PACELINE_UNROLL
