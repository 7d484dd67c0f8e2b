// GCC 12 takes the "undefined" operands inside its own AVX-512 intrinsics for mistakes.
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "hwy/base.h"
#include "kernels/core/float_environment.h"
#include "kernels/core/half.h"
#include "kernels/core/quantize.h"
#include "kernels/core/reduction.h"
#include "kernels/cpu/linear_kernels.h"

HWY_PUSH_ATTRIBUTES("avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512dq,avx512vl")
namespace paceline::kernels::cpu::avx512 {
namespace {

#include "kernels/cpu/vector_avx512-inl.h"

// Keeps a sum in its register. Without it GCC multiplies a whole group ahead of the sums and spills
// what it multiplied.
HWY_INLINE void pin(IVec& sum) { asm("" : "+v"(sum)); }

// Sums of pairs of products fit 16 bits over all of a group: 8 * 2 * 15 * 127 = 30480.
template <int V>
HWY_INLINE void add_quad_int4(const IVec (&q)[V], IVec in, IVec (&dot)[V]) {
  for (int v = 0; v < V; ++v) {
    dot[v] = _mm512_add_epi16(dot[v], _mm512_maddubs_epi16(q[v], in));
    pin(dot[v]);
  }
}
HWY_INLINE IVec sum_int4(IVec dot) { return _mm512_madd_epi16(dot, _mm512_set1_epi16(1)); }

// |w| times in with w's sign: 2 * 128 * 127 fits 16 bits, for w = -128 too, whose magnitude is 128
// as an unsigned byte. So the offset is taken off at once and the term is not needed.
struct Int8Weights {
  __mmask64 signs;
  IVec magnitudes;
};
HWY_INLINE Int8Weights load_int8_weights(const std::byte* from) {
  const IVec w = _mm512_xor_si512(load_bytes(from), _mm512_set1_epi8(-128));
  return {_mm512_movepi8_mask(w), _mm512_abs_epi8(w)};
}
HWY_INLINE IVec start_int8(const std::int32_t*) { return _mm512_setzero_si512(); }
template <int V>
HWY_INLINE void add_quad_int8(const Int8Weights (&w)[V], IVec in, IVec (&dot)[V]) {
  for (int v = 0; v < V; ++v) {
    const IVec pairs = _mm512_maddubs_epi16(
        w[v].magnitudes, _mm512_mask_sub_epi8(in, w[v].signs, _mm512_setzero_si512(), in));
    dot[v] = _mm512_add_epi32(dot[v], _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
    pin(dot[v]);
  }
}

#include "kernels/cpu/linear_tiles-inl.h"
//
#include "kernels/cpu/linear_blocks-inl.h"
//
#include "kernels/cpu/linear_products-inl.h"

}  // namespace

const LinearKernels& linear_kernels() {
  static constexpr LinearKernels kKernels = {kRowBlock, quantize_or_round, multiply};
  return kKernels;
}

}  // namespace paceline::kernels::cpu::avx512
HWY_POP_ATTRIBUTES
