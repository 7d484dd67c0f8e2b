// Products of 16 rows by one panel in the tile registers of AMX, for the integer formats, written
// against a class `Tiles` of their instructions (kernels/cpu/amx_tiles.h). Included inside the
// namespace and the target region of a source file after vector_avx512-inl.h and
// linear_tiles-inl.h; has no include guard for that reason.
//
// A group of 32 or 64 inputs is one instruction: activations [16, group], signed, times the same
// group of a panel's 16 outputs, unsigned (int8 weights are kept + 128), which lies in the panel as
// the instruction reads it: four inputs of an output side by side, 16 outputs a row. What comes of
// it is the exact int32 dot product, as from vector instructions, and goes to the same chains.
//
// One panel at a time: the 16 chains of vectors fill half of the vector registers. Two by two
// tiles, as products without groups take them, would load activations and weights half as often,
// but have four times the chains, which would go to memory and back at every group: more than is
// saved.

static_assert(kLanes == kPanel && kPanel * kQuad == kTileRowBytes);

// Groups that are multiplied before their sums are read: by Intel's optimization manual a product
// is there after some 50 cycles, while a new one can begin every 16.
constexpr int kSumTiles = 4;
using TileSums = std::int32_t[kTileRows][kPanel];

// Tiles 0-3 hold sums, 4 and 5 activations, 6 and 7 weights.
constexpr int kFirstActivations = kSumTiles;
constexpr int kFirstWeights = kSumTiles + 2;

constexpr TileConfig tile_config(int group) {
  TileConfig config;
  for (std::size_t tile = 0; tile < kTileRegisters; ++tile) {
    config.rows[tile] = static_cast<std::uint8_t>(tile < kFirstWeights ? kTileRows : group / kQuad);
    const bool activations = tile >= kFirstActivations && tile < kFirstWeights;
    config.row_bytes[tile] = static_cast<std::uint16_t>(activations ? group : kTileRowBytes);
  }
  return config;
}

// Sums of the I-th of some groups. Neighbours take different registers.
template <int I>
HWY_INLINE void multiply_group(const std::byte* in, std::size_t group, const std::byte* weights,
                               TileSums& sums) {
  constexpr int kActivations = kFirstActivations + I % 2;
  constexpr int kWeights = kFirstWeights + I % 2;
  Tiles::template zero<I>();
  Tiles::template load<kActivations>(in, group);
  Tiles::template load<kWeights>(weights, kTileRowBytes);
  Tiles::template multiply_signed_unsigned<I, kActivations, kWeights>();
  Tiles::template store<I>(sums, kTileRowBytes);
}

HWY_INLINE IVec load_sums(const std::int32_t* sums) { return _mm512_load_si512(sums); }

struct Int4Tiles {
  static constexpr int kGroup = kWeightGroup;
  using Step = Int4Step<1>;

  // Of one group, `packed`; `unpacked` has room for it, a byte a weight.
  static HWY_INLINE const std::byte* weights(const std::byte* packed, std::byte* unpacked) {
    PACELINE_UNROLL
    for (int i = 0; i < 4; ++i) {
      const IVec pair = load_bytes(packed + i * 64);
      _mm512_store_si512(unpacked + i * 128, low_nibbles(pair));
      _mm512_store_si512(unpacked + i * 128 + 64, high_nibbles(pair));
    }
    return unpacked;
  }
  template <typename Rows>
  static HWY_INLINE IVec dot(const Rows&, int r, const TileSums& sums) {
    return load_sums(sums[r]);
  }
  static HWY_INLINE void finish(const TileOperands<1>&, Accumulators<kTileRows, 1>&) {}
};

// The term takes away what the weights' offset adds.
template <typename WeightStep, int Group>
struct Int8Tiles {
  static constexpr int kGroup = Group;
  using Step = WeightStep;

  static HWY_INLINE const std::byte* weights(const std::byte* packed, std::byte*) { return packed; }
  template <typename Rows>
  static HWY_INLINE IVec dot(const Rows& in, int r, const TileSums& sums) {
    return _mm512_add_epi32(load_sums(sums[r]),
                            _mm512_set1_epi32(*in.template term<std::int32_t>(r)));
  }
  static HWY_INLINE void finish(const TileOperands<1>&, Accumulators<kTileRows, 1>&) {}
};
struct Int8GroupTiles : Int8Tiles<Int8GroupStep<1>, kWeightGroup> {};
struct Int8ChannelTiles
    : Int8Tiles<Int8ChannelStep<1>, activation_group(WeightFormat::kInt8Channel)> {
  static HWY_INLINE void finish(const TileOperands<1>& tile, Accumulators<kTileRows, 1>& acc) {
    scale_channels<kTileRows, 1>(tile, acc);
  }
};

template <typename Format>
struct TileProduct {
  static constexpr bool kInteger = true;
  static constexpr bool kFillsRows = true;
  static constexpr int kGroup = Format::kGroup;
  using Rows = QuantizedRows<kGroup, kTileRows>;

  // All R = 16 rows of a block, of which the last may be zeros.
  template <int R, int V>
  static void accumulate(const TileOperands<V>& tile, IndexRange cols, Accumulators<R, V>& acc) {
    static_assert(R == kTileRows && V == 1);
    const std::int64_t end = (cols.end + kGroup - 1) / kGroup;
    for (std::int64_t g = cols.begin / kGroup; g < end; g += kSumTiles) {
      const auto first = static_cast<std::size_t>(g);
      const auto count = static_cast<std::size_t>(std::min<std::int64_t>(kSumTiles, end - g));
      alignas(64) TileSums sums[kSumTiles];
      multiply_groups(tile, first, count, sums);
      for (std::size_t i = 0; i < count; ++i) {
        const Rows in(tile, first + i);
        const typename Format::Step step(tile, first + i);
        PACELINE_UNROLL
        for (int r = 0; r < R; ++r) {
          const IVec dot[1] = {Format::dot(in, r, sums[i])};
          step.add(in, r, dot, acc[r]);
        }
      }
    }
  }
  template <int R, int V>
  static void finish(const TileOperands<V>& tile, Accumulators<R, V>& acc) {
    Format::finish(tile, acc);
  }

 private:
  static HWY_INLINE void multiply_groups(const TileOperands<1>& tile, std::size_t first,
                                         std::size_t count, TileSums (&sums)[kSumTiles]) {
    constexpr std::size_t kGroupBytes = Format::Step::kGroupBytes;
    alignas(64) std::byte unpacked[kSumTiles][kGroup * kPanel];
    const std::byte* weights[kSumTiles] = {};
    for (std::size_t i = 0; i < count; ++i) {
      prefetch_group<kGroupBytes>(tile, first + i);
      weights[i] = Format::weights(tile.panels[0] + (first + i) * kGroupBytes, unpacked[i]);
    }
    const std::byte* in = Rows(tile, first).q;
    constexpr std::size_t kNext = block_group_bytes(kGroup, kTileRows);
    multiply_group<0>(in, kGroup, weights[0], sums[0]);
    if (count > 1) multiply_group<1>(in + kNext, kGroup, weights[1], sums[1]);
    if (count > 2) multiply_group<2>(in + 2 * kNext, kGroup, weights[2], sums[2]);
    if (count > 3) multiply_group<3>(in + 3 * kNext, kGroup, weights[3], sums[3]);
  }
};

// All of a task: a block of panels stays in the cache while all rows pass over it.
template <typename Format>
void multiply_all(const ProductTask& task) {
  static constexpr TileConfig kConfig = tile_config(Format::kGroup);
  const ConfiguredTiles<Tiles> configured(kConfig);
  constexpr int kPanelBlock = 4;
  for (std::int64_t at = task.panels.begin; at < task.panels.end; at += kPanelBlock) {
    const std::int64_t end = std::min<std::int64_t>(at + kPanelBlock, task.panels.end);
    for (std::int64_t block = task.blocks.begin; block < task.blocks.end; ++block) {
      const IndexRange rows = block_rows(task.layout, task.row_count, block);
      for (std::int64_t panel = at; panel < end; ++panel) {
        multiply_tile<TileProduct<Format>, kTileRows, 1>(task, {rows.begin, block, 0, rows.size()},
                                                         panel);
      }
    }
  }
}

void multiply(const ProductTask& task) {
  switch (task.weight->format()) {
    case WeightFormat::kInt8Channel:
      return multiply_all<Int8ChannelTiles>(task);
    case WeightFormat::kInt8Group:
      return multiply_all<Int8GroupTiles>(task);
    case WeightFormat::kInt4Group:
      return multiply_all<Int4Tiles>(task);
    default:
      check(false, "no tile product of {}", format_name(task.weight->format()));
  }
}

// And zeros for the rows that a block lacks: what an earlier product left there could be slow to
// multiply (denormal scales).
void quantize_filled(const QuantizeTask& task) {
  quantize(task);
  const QuantizedLayout& layout = task.layout;
  const auto group = static_cast<std::size_t>(layout.group);
  const std::int64_t block = block_of_row(layout, task.row_count, task.row);
  const IndexRange in_block = block_rows(layout, task.row_count, block);
  const auto rows = static_cast<std::size_t>(in_block.size());
  if (task.row + 1 < in_block.end || rows == kTileRows) return;
  std::byte* const blocks = task.out + static_cast<std::size_t>(block) * layout.block_bytes;
  for (std::int64_t g = task.groups.begin; g < task.groups.end; ++g) {
    std::byte* to =
        blocks + static_cast<std::size_t>(g) * block_group_bytes(layout.group, kTileRows);
    std::byte* scales = to + kTileRows * group;
    std::memset(to + rows * group, 0, (kTileRows - rows) * group);
    std::memset(scales + rows * 4, 0, (kTileRows - rows) * 4);
    std::memset(scales + (kTileRows + rows) * 4, 0, (kTileRows - rows) * 4);
  }
}

constexpr LinearKernels kTileKernels = {kTileRows, quantize_filled, multiply};
