#include "free_products.h"

// GCC 12 takes the "undefined" operands inside its own AVX-512 intrinsics for mistakes.
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wunused-function"
#endif

#ifdef __AVX2__

#include <fmt/format.h>
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "hwy/base.h"
#include "kernels/core/half.h"
#include "kernels/core/quantize.h"

namespace paceline::kernels {
namespace {

using cpu::kPanel;
using cpu::kQuad;
using cpu::PanelMatrix;

#ifdef __AVX512VNNI__
#include "kernels/cpu/vector_avx512-inl.h"
#ifdef __AVX512BF16__
constexpr const char* kIsa = "avx512bf16";
#else
constexpr const char* kIsa = "avx512vnni";
#endif
using Int8Weights = IVec;
HWY_INLINE Int8Weights load_int8_weights(const std::byte* from) { return load_bytes(from); }
HWY_INLINE IVec start_int8(const std::int32_t* term) { return _mm512_set1_epi32(*term); }
template <int V>
HWY_INLINE void add_quad_int4(const IVec (&q)[V], IVec in, IVec (&dot)[V]) {
  for (int v = 0; v < V; ++v) dot[v] = _mm512_dpbusd_epi32(dot[v], q[v], in);
}
template <int V>
HWY_INLINE void add_quad_int8(const Int8Weights (&w)[V], IVec in, IVec (&dot)[V]) {
  add_quad_int4<V>(w, in, dot);
}
HWY_INLINE IVec sum_int4(IVec dot) { return dot; }
#else
#include "kernels/cpu/vector_avx2-inl.h"
constexpr const char* kIsa = "avx2";
#endif

#define UNROLL _Pragma("GCC unroll 16")

// R rows of activations and V column vectors. Quantized rows of a tile lie together, for each group
// int8 [R, group], fp32 scales [R], 32-bit terms [R].
template <int R, int V>
struct Tile {
  const std::byte* columns[V];  // of weights: the vector's part of its panel
  const std::byte* halves[V];   // of fp16 scales: the vector's part of its panel
  const float* in;              // fp32 [R, cols]
  const std::byte* quantized;   // or rounded to bf16: pairs as the weights lie, [R, row_words]
  const PanelMatrix* weight;
};

HWY_INLINE void prefetch(const std::byte* from, std::size_t bytes) {
  constexpr std::size_t kAhead = 8192;
  for (std::size_t at = 0; at < bytes; at += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(from) + kAhead + at, _MM_HINT_T0);
  }
}

template <WeightFormat kFormat>
HWY_INLINE Vec widen(const std::byte* from) {
  if constexpr (kFormat == WeightFormat::kFp32) return load(reinterpret_cast<const float*>(from));
  return load_fp16(reinterpret_cast<const std::uint16_t*>(from));
}

// `Chains` inputs at a time, each to its own chain.
template <WeightFormat kFormat, int R, int V, int Chains>
void accumulate_floats(const Tile<R, V>& tile, Vec (&acc)[Chains][R][V]) {
  constexpr std::size_t kRowBytes = kPanel * (kFormat == WeightFormat::kFp32 ? 4 : 2);
  const auto cols = static_cast<std::size_t>(tile.weight->cols());
  for (std::size_t k = 0; k < cols; k += Chains) {
    UNROLL
    for (std::size_t c = 0; c < Chains; ++c) {
      Vec w[V];
      UNROLL
      for (int v = 0; v < V; ++v) {
        const std::byte* from = tile.columns[v] + (k + c) * kRowBytes;
        prefetch(from, 1);
        w[v] = widen<kFormat>(from);
      }
      UNROLL
      for (std::size_t r = 0; r < R; ++r) {
        const Vec x = broadcast(tile.in + r * cols + k + c);
        UNROLL
        for (int v = 0; v < V; ++v) acc[c][r][v] = fma(x, w[v], acc[c][r][v]);
      }
    }
  }
}

// Words of a row of bf16 pairs; without instructions for them, of their elements in fp32.
#ifdef __AVX512BF16__
std::size_t row_words(std::int64_t cols) { return static_cast<std::size_t>(cols + 1) / 2; }
#else
std::size_t row_words(std::int64_t cols) { return static_cast<std::size_t>(cols); }
#endif

void round_rows(const PanelMatrix& weight, const float* in, std::int64_t rows, std::byte* out) {
  const std::int64_t cols = weight.cols();
  for (std::int64_t m = 0; m < rows; ++m) {
    std::byte* row = out + static_cast<std::size_t>(m) * row_words(cols) * 4;
#ifdef __AVX512BF16__
    for (std::int64_t k = 0; k < cols; k += 2) {
      const std::uint32_t second = k + 1 < cols ? fp32_to_bf16(in[m * cols + k + 1]) : 0;
      const std::uint32_t pair = std::uint32_t{fp32_to_bf16(in[m * cols + k])} << 16 | second;
      std::memcpy(row + k * 2, &pair, 4);
    }
#else
    for (std::int64_t k = 0; k < cols; ++k) {
      const float rounded = bf16_to_fp32(fp32_to_bf16(in[m * cols + k]));
      std::memcpy(row + k * 4, &rounded, 4);
    }
#endif
  }
}

// acc += the products of a pair of inputs, whose activations are in one word, or in two.
template <int V>
HWY_INLINE void add_pair(const IVec (&w)[V], const std::byte* in, Vec (&acc)[V]) {
#ifdef __AVX512BF16__
  const IVec x = broadcast_quad(reinterpret_cast<const std::int8_t*>(in));
  UNROLL
  for (int v = 0; v < V; ++v) {
    acc[v] =
        _mm512_dpbf16_ps(acc[v], reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(w[v]));
  }
#else
  const auto* x = reinterpret_cast<const float*>(in);
  UNROLL
  for (int v = 0; v < V; ++v) acc[v] = fma(broadcast(x), upper_bf16(w[v]), acc[v]);
  UNROLL
  for (int v = 0; v < V; ++v) acc[v] = fma(broadcast(x + 1), lower_bf16(w[v]), acc[v]);
#endif
}

// Pairs go to the chains in turn.
template <int R, int V, int Chains>
void accumulate_bf16(const Tile<R, V>& tile, Vec (&acc)[Chains][R][V]) {
  const std::size_t words = row_words(tile.weight->cols());
  const auto pairs = static_cast<std::size_t>(tile.weight->layout().groups);
  const std::size_t pair_words = words / pairs;
  for (std::size_t pair = 0; pair < pairs; pair += Chains) {
    UNROLL
    for (std::size_t c = 0; c < Chains; ++c) {
      IVec w[V];
      UNROLL
      for (int v = 0; v < V; ++v) {
        const std::byte* from = tile.columns[v] + (pair + c) * kPanel * 4;
        prefetch(from, 1);
        w[v] = load_bytes(from);
      }
      UNROLL
      for (std::size_t r = 0; r < R; ++r) {
        add_pair<V>(w, tile.quantized + (r * words + (pair + c) * pair_words) * 4, acc[c][r]);
      }
    }
  }
}

constexpr std::size_t group_bytes(std::size_t rows, int group) {
  return rows * (static_cast<std::size_t>(group) + 8);
}

// The dot products of group g; acc += dot * scales.
template <WeightFormat kFormat, int R, int V>
HWY_INLINE void add_group(const Tile<R, V>& tile, std::size_t g, Vec (&acc)[R][V]) {
  constexpr bool kInt4 = kFormat == WeightFormat::kInt4Group;
  constexpr int kGroup = activation_group(kFormat);
  constexpr std::size_t kBytes = kInt4 ? 320 : kGroup * kPanel;
  const std::byte* in = tile.quantized + g * group_bytes(R, kGroup);
  const auto* quads = reinterpret_cast<const std::int8_t*>(in);
  const auto* scales = reinterpret_cast<const float*>(in + R * kGroup);
  const auto* terms = reinterpret_cast<const std::int32_t*>(scales + R);
  IVec dot[R][V] = {};
  prefetch(tile.columns[0] + g * kBytes, kBytes);
  if constexpr (kInt4) {
    UNROLL
    for (int i = 0; i < 4; ++i) {
      IVec low[V], high[V];
      UNROLL
      for (int v = 0; v < V; ++v) {
        const IVec pair = load_bytes(tile.columns[v] + g * kBytes + i * 64);
        low[v] = low_nibbles(pair);
        high[v] = high_nibbles(pair);
      }
      UNROLL
      for (int r = 0; r < R; ++r) {
        add_quad_int4<V>(low, broadcast_quad(quads + r * kGroup + 8 * i), dot[r]);
        add_quad_int4<V>(high, broadcast_quad(quads + r * kGroup + 8 * i + 4), dot[r]);
      }
    }
  } else {
    UNROLL
    for (int r = 0; r < R; ++r) {
      UNROLL
      for (int v = 0; v < V; ++v) dot[r][v] = start_int8(terms + r);
    }
    UNROLL
    for (int i = 0; i < kGroup / kQuad; ++i) {
      Int8Weights w[V];
      UNROLL
      for (int v = 0; v < V; ++v) {
        w[v] = load_int8_weights(tile.columns[v] + g * kBytes + i * 64);
      }
      UNROLL
      for (int r = 0; r < R; ++r) {
        add_quad_int8<V>(w, broadcast_quad(quads + r * kGroup + i * kQuad), dot[r]);
      }
    }
  }
  UNROLL
  for (int v = 0; v < V; ++v) {
    const auto* halves =
        reinterpret_cast<const std::uint16_t*>(tile.halves[v] + g * (kInt4 ? kBytes : kPanel * 2));
    UNROLL
    for (int r = 0; r < R; ++r) {
      if constexpr (kInt4) {
        acc[r][v] = fma(to_float(sum_int4(dot[r][v])),
                        mul(broadcast(scales + r), load_fp16(halves)), acc[r][v]);
        acc[r][v] = fma(broadcast(reinterpret_cast<const float*>(terms) + r),
                        load_fp16(halves + kPanel), acc[r][v]);
      } else if constexpr (kFormat == WeightFormat::kInt8Group) {
        acc[r][v] =
            fma(to_float(dot[r][v]), mul(broadcast(scales + r), load_fp16(halves)), acc[r][v]);
      } else {
        acc[r][v] = fma(to_float(dot[r][v]), broadcast(scales + r), acc[r][v]);
      }
    }
  }
}

// Groups go to the chains in turn.
template <WeightFormat kFormat, int R, int V, int Chains>
void accumulate_integers(const Tile<R, V>& tile, Vec (&acc)[Chains][R][V]) {
  const auto groups = static_cast<std::size_t>(tile.weight->layout().groups);
  for (std::size_t g = 0; g < groups; g += Chains) {
    UNROLL
    for (std::size_t c = 0; c < Chains; ++c) {
      if (c == 0 || g + c < groups) add_group<kFormat, R, V>(tile, g + c, acc[c]);
    }
  }
}

template <WeightFormat kFormat, int R, int V, int Chains>
void multiply_tile(const Tile<R, V>& tile, const float* scales, float* out) {
  Vec acc[Chains][R][V] = {};
  if constexpr (kFormat == WeightFormat::kBf16) {
    accumulate_bf16<R, V, Chains>(tile, acc);
  } else if constexpr (activation_group(kFormat) == 0) {
    accumulate_floats<kFormat, R, V, Chains>(tile, acc);
  } else {
    accumulate_integers<kFormat, R, V, Chains>(tile, acc);
  }
  UNROLL
  for (int v = 0; v < V; ++v) {
    UNROLL
    for (int r = 0; r < R; ++r) {
      Vec sum = acc[0][r][v];
      UNROLL
      for (int c = 1; c < Chains; ++c) sum = add(sum, acc[c][r][v]);
      if (scales != nullptr) sum = mul(sum, load(scales + v * kLanes));
      store(out + r * tile.weight->rows() + v * kLanes, sum);
    }
  }
}

template <int R>
void quantize(const PanelMatrix& weight, const float* in, std::int64_t rows, std::byte* out) {
  const int group = activation_group(weight.format());
  const std::int64_t groups = weight.layout().groups;
  for (std::int64_t m = 0; m < rows; ++m) {
    std::byte* block = out + static_cast<std::size_t>(m / R * groups) * group_bytes(R, group);
    for (std::int64_t g = 0; g < groups; ++g) {
      std::byte* to = block + static_cast<std::size_t>(g) * group_bytes(R, group);
      const float* from = in + m * weight.cols() + g * group;
      const GroupScale scale = group_scale(largest_magnitude(from, group));
      const std::int32_t sum = round_group(from, scale.inverse, group,
                                           reinterpret_cast<std::int8_t*>(to) + m % R * group);
      const float term = scale.scale * static_cast<float>(sum);
      const std::int32_t undo = -128 * sum;
      auto* scales = reinterpret_cast<float*>(to + R * group);
      scales[m % R] = scale.scale;
      std::memcpy(
          scales + R + m % R,
          weight.format() == WeightFormat::kInt4Group ? static_cast<const void*>(&term) : &undo, 4);
    }
  }
}

template <WeightFormat kFormat, int R, int V, int Chains>
void run(const PanelMatrix& weight, const float* in, std::int64_t rows, float* out) {
  constexpr int kVectorsPerPanel = kPanel / kLanes;
  constexpr std::int64_t kBlock = 4;  // vectors that stay in the cache while all rows pass
  constexpr int kGroup = activation_group(kFormat);
  constexpr bool kBf16 = kFormat == WeightFormat::kBf16;
  const std::size_t tile_bytes =
      kBf16 ? R * row_words(weight.cols()) * 4
            : static_cast<std::size_t>(weight.layout().groups) * group_bytes(R, kGroup);
  static thread_local std::vector<std::byte> scratch;
  if constexpr (kGroup != 0 || kBf16) {
    const std::size_t bytes = static_cast<std::size_t>(rows / R) * tile_bytes;
    if (scratch.size() < bytes) scratch.resize(bytes);
    if constexpr (kBf16) {
      round_rows(weight, in, rows, scratch.data());
    } else {
      quantize<R>(weight, in, rows, scratch.data());
    }
  }
  const std::int64_t vectors = weight.panels() * kVectorsPerPanel;
  for (std::int64_t block = 0; block < vectors; block += kBlock) {
    for (std::int64_t row = 0; row < rows; row += R) {
      for (std::int64_t at = block; at < std::min(block + kBlock, vectors); at += V) {
        Tile<R, V> tile;
        tile.in = in + row * weight.cols();
        tile.quantized = scratch.data() + static_cast<std::size_t>(row / R) * tile_bytes;
        tile.weight = &weight;
        const float* scales = nullptr;
        for (int v = 0; v < V; ++v) {
          const std::byte* panel = weight.panel((at + v) / kVectorsPerPanel);
          const auto lane = static_cast<std::size_t>((at + v) % kVectorsPerPanel) * kLanes;
          constexpr std::size_t kLaneBytes =
              kGroup != 0 ? kQuad : (kFormat == WeightFormat::kFp16 ? 2 : 4);
          tile.columns[v] = panel + lane * kLaneBytes;
          tile.halves[v] =
              panel + lane * 2 +
              (kFormat == WeightFormat::kInt4Group ? 256 : weight.layout().scale_offset);
        }
        float channel_scales[V * kLanes];
        if constexpr (kFormat == WeightFormat::kInt8Channel) {
          for (int v = 0; v < V; ++v) {
            const auto lane = static_cast<std::size_t>((at + v) % kVectorsPerPanel) * kLanes;
            std::memcpy(
                channel_scales + v * kLanes,
                weight.panel((at + v) / kVectorsPerPanel) + weight.layout().scale_offset + lane * 4,
                kLanes * 4);
          }
          scales = channel_scales;
        }
        multiply_tile<kFormat, R, V, Chains>(tile, scales, out + row * weight.rows() + at * kLanes);
      }
    }
  }
}

template <WeightFormat kFormat, int R, int V, int Chains>
FreeProduct candidate() {
  return {fmt::format("{} x {}, {} chain{}", R, V, Chains, Chains == 1 ? "" : "s"), R,
          std::max(1, V * kLanes / kPanel), run<kFormat, R, V, Chains>};
}

template <WeightFormat kFormat>
std::vector<FreeProduct> float_candidates() {
  return {
      candidate<kFormat, 1, 1, 8>(), candidate<kFormat, 1, 2, 4>(), candidate<kFormat, 1, 4, 2>(),
      candidate<kFormat, 1, 4, 4>(), candidate<kFormat, 2, 1, 8>(), candidate<kFormat, 2, 2, 2>(),
      candidate<kFormat, 2, 2, 4>(), candidate<kFormat, 2, 4, 2>(), candidate<kFormat, 4, 1, 4>(),
      candidate<kFormat, 4, 2, 1>(), candidate<kFormat, 4, 2, 2>(), candidate<kFormat, 4, 4, 1>(),
      candidate<kFormat, 8, 1, 1>(), candidate<kFormat, 8, 1, 2>(), candidate<kFormat, 8, 2, 1>(),
      candidate<kFormat, 16, 1, 1>()};
}

template <WeightFormat kFormat>
std::vector<FreeProduct> integer_candidates() {
  return {
      candidate<kFormat, 1, 1, 1>(), candidate<kFormat, 1, 1, 2>(), candidate<kFormat, 1, 2, 1>(),
      candidate<kFormat, 1, 2, 2>(), candidate<kFormat, 1, 4, 1>(), candidate<kFormat, 2, 1, 1>(),
      candidate<kFormat, 2, 1, 2>(), candidate<kFormat, 2, 2, 1>(), candidate<kFormat, 2, 2, 2>(),
      candidate<kFormat, 2, 4, 1>(), candidate<kFormat, 4, 1, 1>(), candidate<kFormat, 4, 1, 2>(),
      candidate<kFormat, 4, 2, 1>(), candidate<kFormat, 4, 4, 1>(), candidate<kFormat, 8, 1, 1>(),
      candidate<kFormat, 8, 2, 1>(), candidate<kFormat, 16, 1, 1>()};
}

}  // namespace

std::vector<FreeProduct> free_products(WeightFormat format) {
  switch (format) {
    case WeightFormat::kFp32:
      return float_candidates<WeightFormat::kFp32>();
    case WeightFormat::kBf16:
      return float_candidates<WeightFormat::kBf16>();
    case WeightFormat::kFp16:
      return float_candidates<WeightFormat::kFp16>();
    case WeightFormat::kInt8Channel:
      return integer_candidates<WeightFormat::kInt8Channel>();
    case WeightFormat::kInt8Group:
      return integer_candidates<WeightFormat::kInt8Group>();
    case WeightFormat::kInt4Group:
      return integer_candidates<WeightFormat::kInt4Group>();
    case WeightFormat::kFp8:  // widened as fp16 is; not measured by itself
      return {};
  }
  return {};
}

std::string free_products_isa() { return kIsa; }

}  // namespace paceline::kernels

#else

namespace paceline::kernels {
std::vector<FreeProduct> free_products(WeightFormat) { return {}; }
std::string free_products_isa() { return {}; }
}  // namespace paceline::kernels

#endif
