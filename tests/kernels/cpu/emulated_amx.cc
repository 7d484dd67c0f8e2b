#include "tests/kernels/cpu/emulated_amx.h"

// GCC 12 takes the "undefined" operands inside its own AVX-512 intrinsics for mistakes.
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "hwy/base.h"
#include "kernels/core/error.h"
#include "kernels/core/quantize.h"
#include "kernels/core/reduction.h"
#include "kernels/cpu/amx_tiles.h"

HWY_PUSH_ATTRIBUTES("avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512dq,avx512vl")
namespace paceline::kernels::cpu::emulated_amx {
namespace {

using Tiles = EmulatedTiles;

#include "kernels/cpu/vector_avx512-inl.h"

#include "kernels/cpu/linear_tiles-inl.h"
//
#include "kernels/cpu/linear_amx-inl.h"

}  // namespace

const LinearKernels& linear_kernels() {
  static const LinearKernels kernels = {kRowBlock, avx512::linear_kernels().quantize,
                                        avx512::linear_kernels().multiply, &kTileKernels, 1};
  return kernels;
}

}  // namespace paceline::kernels::cpu::emulated_amx
HWY_POP_ATTRIBUTES
