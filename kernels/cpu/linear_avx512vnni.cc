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

// Sum over a group of 32 of u8 weights times s8 activations, one output a lane. Two chains, as an
// instruction's result is ready only after several others could have begun.
inline IVec add_dot(IVec start, const IVec (&q)[8], const std::int8_t* in) {
  IVec even = start;
  IVec odd = _mm512_setzero_si512();
  for (int i = 0; i < 8; i += 2) {
    even = _mm512_dpbusd_epi32(even, q[i], broadcast_quad(in + i * kQuad));
    odd = _mm512_dpbusd_epi32(odd, q[i + 1], broadcast_quad(in + (i + 1) * kQuad));
  }
  return _mm512_add_epi32(even, odd);
}

inline IVec dot_int4(const IVec (&q)[8], const std::int8_t* in) {
  return add_dot(_mm512_setzero_si512(), q, in);
}

// Weights stay w + 128; the term takes away what that adds.
inline IVec load_int8_weights(const std::byte* from) { return load_bytes(from); }
inline IVec start_int8(const std::int32_t* term) { return _mm512_set1_epi32(*term); }
inline IVec add_dot_int8(IVec start, const IVec (&q)[8], const std::int8_t* in) {
  return add_dot(start, q, in);
}

#include "kernels/cpu/linear_tiles-inl.h"

}  // namespace

const LinearKernels& linear_kernels() {
  static constexpr LinearKernels kKernels = {quantize, multiply};
  return kKernels;
}

}  // namespace paceline::kernels::cpu::avx512vnni
HWY_POP_ATTRIBUTES
