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

HWY_PUSH_ATTRIBUTES("avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
namespace paceline::kernels::cpu::avx512vnni {
namespace {

#include "kernels/cpu/vector_avx512-inl.h"

// dot += the sum of four u8 weights times four s8 activations, one output a lane.
template <int V>
HWY_INLINE void add_quad_int4(const IVec (&q)[V], IVec in, IVec (&dot)[V]) {
  for (int v = 0; v < V; ++v) dot[v] = _mm512_dpbusd_epi32(dot[v], q[v], in);
}
HWY_INLINE IVec sum_int4(IVec dot) { return dot; }

// Weights stay w + 128; the term takes away what that adds.
using Int8Weights = IVec;
HWY_INLINE Int8Weights load_int8_weights(const std::byte* from) { return load_bytes(from); }
HWY_INLINE IVec start_int8(const std::int32_t* term) { return _mm512_set1_epi32(*term); }
template <int V>
HWY_INLINE void add_quad_int8(const Int8Weights (&w)[V], IVec in, IVec (&dot)[V]) {
  add_quad_int4<V>(w, in, dot);
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

}  // namespace paceline::kernels::cpu::avx512vnni
HWY_POP_ATTRIBUTES
