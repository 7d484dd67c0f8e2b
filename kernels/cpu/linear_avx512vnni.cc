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

HWY_PUSH_ATTRIBUTES("avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
namespace paceline::kernels::cpu::avx512vnni {
namespace {

#include "kernels/cpu/vector_avx512-inl.h"

// Adds the sum over 32 u8 weights times s8 activations, one output a lane. Two chains, as an
// instruction's result is ready only after several others could have begun.
template <int V>
inline void add_dot(const IVec (&q)[V][8], const std::int8_t* in, IVec (&dot)[V]) {
  IVec odd[V];
  for (int v = 0; v < V; ++v) odd[v] = _mm512_setzero_si512();
  for (int i = 0; i < 8; i += 2) {
    const IVec even_quad = broadcast_quad(in + i * kQuad);
    const IVec odd_quad = broadcast_quad(in + (i + 1) * kQuad);
    for (int v = 0; v < V; ++v) {
      dot[v] = _mm512_dpbusd_epi32(dot[v], q[v][i], even_quad);
      odd[v] = _mm512_dpbusd_epi32(odd[v], q[v][i + 1], odd_quad);
    }
  }
  for (int v = 0; v < V; ++v) dot[v] = _mm512_add_epi32(dot[v], odd[v]);
}

template <int V>
inline void dot_int4(const IVec (&q)[V][8], const std::int8_t* in, IVec (&dot)[V]) {
  for (int v = 0; v < V; ++v) dot[v] = _mm512_setzero_si512();
  add_dot<V>(q, in, dot);
}

// Weights stay w + 128; the term takes away what that adds.
inline IVec load_int8_weights(const std::byte* from) { return load_bytes(from); }
inline IVec start_int8(const std::int32_t* term) { return _mm512_set1_epi32(*term); }
template <int V>
inline void add_dot_int8(const IVec (&q)[V][8], const std::int8_t* in, IVec (&dot)[V]) {
  add_dot<V>(q, in, dot);
}

#include "kernels/cpu/linear_tiles-inl.h"

}  // namespace

const LinearKernels& linear_kernels() {
  static constexpr LinearKernels kKernels = {quantize, multiply};
  return kKernels;
}

}  // namespace paceline::kernels::cpu::avx512vnni
HWY_POP_ATTRIBUTES
