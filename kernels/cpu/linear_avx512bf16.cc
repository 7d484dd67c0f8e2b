// GCC 12 takes the "undefined" operands inside its own AVX-512 intrinsics for mistakes.
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "hwy/base.h"
#include "kernels/core/quantize.h"
#include "kernels/core/reduction.h"
#include "kernels/cpu/linear_kernels.h"

HWY_PUSH_ATTRIBUTES("avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
namespace paceline::kernels::cpu::avx512bf16 {
namespace {

#include "kernels/cpu/vector_avx512-inl.h"

#include "kernels/cpu/linear_tiles-inl.h"
//
#include "kernels/cpu/linear_blocks-inl.h"

static_assert(kFloatGroup == kLanes);

// As pairs that lie as the weights do: the first in a word's upper half.
void round_groups(const QuantizeTask& task) {
  auto* out = reinterpret_cast<std::uint32_t*>(task.out + static_cast<std::size_t>(task.row) *
                                                              task.layout.row_bytes);
  const std::int64_t end = std::min(task.groups.end * kFloatGroup, task.cols);
  for (std::int64_t k = task.groups.begin * kFloatGroup; k < end; k += kLanes) {
    const auto count = static_cast<int>(std::min<std::int64_t>(end - k, kLanes));
    const auto lanes = static_cast<__mmask16>((1u << count) - 1);
    // Two inputs in 64 bits, the first below.
    const IVec both = round_to_bf16(_mm512_maskz_loadu_ps(lanes, task.in + k));
    const IVec first = _mm512_and_si512(both, _mm512_set1_epi64(0xffff0000));
    const IVec pairs = _mm512_or_si512(first, _mm512_srli_epi64(both, 48));
    const auto words = static_cast<__mmask8>((1u << (count + 1) / 2) - 1);
    _mm512_mask_cvtepi64_storeu_epi32(out + k / 2, words, pairs);
  }
}

void quantize_or_round(const QuantizeTask& task) {
  task.format == WeightFormat::kBf16 ? round_groups(task) : quantize(task);
}

// The instruction adds the product of the upper halves, then that of the lower, each as
// kernels/core/flushed_fma.h says.
struct Bf16Product {
  static constexpr bool kInteger = false;
  static constexpr bool kFillsRows = false;
  static constexpr int kStreamedRows = 4;

  template <int R, int V>
  static void accumulate(const TileOperands<V>& tile, IndexRange cols, Accumulators<R, V>& acc) {
    const std::int64_t end = cols.end / 2;
    std::int64_t pair = cols.begin / 2;
    if (cols.begin % 2 != 0) add_half<R, V>(tile, pair++, kLower, acc);
    for (; pair < end; ++pair) {
      prefetch_input<kPairBytes>(tile, static_cast<std::size_t>(pair));
      IVec w[V];
      PACELINE_UNROLL
      for (int v = 0; v < V; ++v) w[v] = weights(tile, v, pair);
      PACELINE_UNROLL
      for (int r = 0; r < R; ++r) add_pair<V>(_mm512_set1_epi32(input(tile, r, pair)), w, acc[r]);
    }
    if (cols.end % 2 != 0) add_half<R, V>(tile, pair, kUpper, acc);
  }
  template <int R, int V>
  static void finish(const TileOperands<V>&, Accumulators<R, V>&) {}

 private:
  static constexpr std::size_t kPairBytes = kPanel * sizeof(std::uint32_t);
  static constexpr int kUpper = -0x10000;
  static constexpr int kLower = 0xffff;

  template <int V>
  static HWY_INLINE IVec weights(const TileOperands<V>& tile, int v, std::int64_t pair) {
    return load_bytes(tile.panels[v] + static_cast<std::size_t>(pair) * kPairBytes);
  }
  template <int V>
  static HWY_INLINE int input(const TileOperands<V>& tile, int r, std::int64_t pair) {
    int word;
    std::memcpy(&word, tile.plain_row(r) + pair, sizeof(word));
    return word;
  }
  template <int V>
  static HWY_INLINE void add_pair(IVec x, const IVec (&w)[V], Vec (&acc)[V]) {
    PACELINE_UNROLL
    for (int v = 0; v < V; ++v) {
      acc[v] =
          _mm512_dpbf16_ps(acc[v], reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(w[v]));
    }
  }
  // Where a segment ends inside a pair, the other half is -0 times +0: added to a sum, -0 changes
  // nothing, not even the sign of a zero.
  template <int R, int V>
  static void add_half(const TileOperands<V>& tile, std::int64_t pair, int half,
                       Accumulators<R, V>& acc) {
    constexpr int kMinusZeros = -0x7fff8000;
    IVec w[V];
    PACELINE_UNROLL
    for (int v = 0; v < V; ++v) {
      w[v] = _mm512_and_si512(weights(tile, v, pair), _mm512_set1_epi32(half));
    }
    PACELINE_UNROLL
    for (int r = 0; r < R; ++r) {
      const int x = (input(tile, r, pair) & half) | (kMinusZeros & ~half);
      add_pair<V>(_mm512_set1_epi32(x), w, acc[r]);
    }
  }
};

void multiply(const ProductTask& task) {
  if (task.weight->format() == WeightFormat::kBf16) return multiply_all<Bf16Product>(task);
  avx512vnni::linear_kernels().multiply(task);
}

}  // namespace

const LinearKernels& linear_kernels() {
  static constexpr LinearKernels kKernels = {kRowBlock, quantize_or_round, multiply};
  return kKernels;
}

}  // namespace paceline::kernels::cpu::avx512bf16
HWY_POP_ATTRIBUTES
