// Products whose dot products are vector instructions, for linear_tiles-inl.h, after which and
// linear_blocks-inl.h, and after an instruction set's integer dot products, this is included inside
// the namespace and the target region of a source file; has no include guard for that reason.

struct Fp32Weights {
  using Element = float;
  static Vec widen(const float* from) { return load(from); }
};
struct Fp16Weights {
  using Element = std::uint16_t;
  static Vec widen(const std::uint16_t* from) { return load_fp16(from); }
};

struct Fp8Weights {
  using Element = std::uint8_t;
  static Vec widen(const std::uint8_t* from) { return load_fp8(from); }
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
  static void finish(const TileOperands<V>& tile, Accumulators<R, V>& acc) {
    if constexpr (std::is_same_v<Format, Fp8Weights>) scale_channels<R, V>(tile, acc);
  }
};

// Between two of these the accumulators are in registers: what is computed there stays there.
template <int R, int V>
HWY_INLINE void hold(Accumulators<R, V>& acc) {
  PACELINE_UNROLL
  for (int r = 0; r < R; ++r) {
    PACELINE_UNROLL
    for (int v = 0; v < V; ++v) hold(acc[r][v]);
  }
}

// The chains of kernels/core/flushed_fma.h, where there is no instruction for them.
struct Bf16Product {
  static constexpr bool kInteger = false;
  static constexpr bool kFillsRows = false;
  static constexpr int kStreamedRows = 0;

  template <int R, int V>
  static void accumulate(const TileOperands<V>& tile, IndexRange cols, Accumulators<R, V>& acc) {
    const FlushedDenormals flushed;
    hold<R, V>(acc);
    const std::uint32_t* weights[V];
    PACELINE_UNROLL
    for (int v = 0; v < V; ++v) {
      weights[v] = reinterpret_cast<const std::uint32_t*>(tile.panels[v]) + tile.lanes[v];
    }
    const float* in[R];
    PACELINE_UNROLL
    for (int r = 0; r < R; ++r) in[r] = tile.plain_row(r);
    const std::int64_t end = cols.end / 2;
    std::int64_t pair = cols.begin / 2;
    if (cols.begin % 2 != 0) {
      add_input<1, R, V>(load_pairs<V>(weights, pair), in, pair, acc);
      ++pair;
    }
    for (; pair < end; ++pair) {
      prefetch_input<kPanel * sizeof(std::uint32_t)>(tile, static_cast<std::size_t>(pair));
      const Pairs<V> w = load_pairs<V>(weights, pair);
      add_input<0, R, V>(w, in, pair, acc);
      add_input<1, R, V>(w, in, pair, acc);
    }
    if (cols.end % 2 != 0) add_input<0, R, V>(load_pairs<V>(weights, pair), in, pair, acc);
    hold<R, V>(acc);
  }
  template <int R, int V>
  static void finish(const TileOperands<V>&, Accumulators<R, V>&) {}

 private:
  template <int V>
  struct Pairs {
    IVec of[V];
  };
  template <int V>
  static HWY_INLINE Pairs<V> load_pairs(const std::uint32_t* const (&weights)[V],
                                        std::int64_t pair) {
    Pairs<V> pairs;
    PACELINE_UNROLL
    for (int v = 0; v < V; ++v) {
      pairs.of[v] = load_bytes(reinterpret_cast<const std::byte*>(weights[v] + pair * kPanel));
    }
    return pairs;
  }
  // The first (0) or the second input of a pair.
  template <int Second, int R, int V>
  static HWY_INLINE void add_input(const Pairs<V>& pairs, const float* const (&in)[R],
                                   std::int64_t pair, Accumulators<R, V>& acc) {
    Vec w[V];
    PACELINE_UNROLL
    for (int v = 0; v < V; ++v) w[v] = Second ? lower_bf16(pairs.of[v]) : upper_bf16(pairs.of[v]);
    PACELINE_UNROLL
    for (int r = 0; r < R; ++r) {
      const Vec x = broadcast(in[r] + 2 * pair + Second);
      PACELINE_UNROLL
      for (int v = 0; v < V; ++v) acc[r][v] = fma(x, w[v], acc[r][v]);
    }
  }
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

// For bf16 products, plain rows whose elements are bf16 numbers.
void round_groups(const QuantizeTask& task) {
  auto* out = reinterpret_cast<float*>(task.out +
                                       static_cast<std::size_t>(task.row) * task.layout.row_bytes);
  std::int64_t k = task.groups.begin * kFloatGroup;
  const std::int64_t end = std::min(task.groups.end * kFloatGroup, task.cols);
  for (; k + kLanes <= end; k += kLanes) {
    store(out + k, upper_bf16(round_to_bf16(load(task.in + k))));
  }
  for (; k < end; ++k) out[k] = bf16_to_fp32(fp32_to_bf16(task.in[k]));
}

void quantize_or_round(const QuantizeTask& task) {
  task.format == WeightFormat::kBf16 ? round_groups(task) : quantize(task);
}

void multiply(const ProductTask& task) {
  switch (task.weight->format()) {
    case WeightFormat::kFp32:
      return multiply_all<DenseProduct<Fp32Weights>>(task);
    case WeightFormat::kBf16:
      return multiply_all<Bf16Product>(task);
    case WeightFormat::kFp16:
      return multiply_all<DenseProduct<Fp16Weights>>(task);
    case WeightFormat::kFp8:
      return multiply_all<DenseProduct<Fp8Weights>>(task);
    case WeightFormat::kInt8Channel:
      return multiply_all<Int8ChannelProduct>(task);
    case WeightFormat::kInt8Group:
      return multiply_all<Int8GroupProduct>(task);
    case WeightFormat::kInt4Group:
      return multiply_all<Int4Product>(task);
  }
}
