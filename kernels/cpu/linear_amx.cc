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
#include "kernels/cpu/linear_kernels.h"

HWY_PUSH_ATTRIBUTES("avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512dq,avx512vl")
namespace paceline::kernels::cpu::amx {
namespace {

using Tiles = HardwareTiles;

#include "kernels/cpu/vector_avx512-inl.h"

#include "kernels/cpu/linear_tiles-inl.h"
//
#include "kernels/cpu/linear_amx-inl.h"

}  // namespace

// Tiles take over where they are full. By estimate (multiply-adds per cycle and core, groups of 32:
// AMX about 170, near 1,000 if there were no groups; VNNI 50 and 90) a tile of 16 rows costs what 5
// rows cost by VNNI, whose up to 8 rows wait for their weights anyway when those come from memory.
// None of this has been measured: no machine with AMX has run it yet.
const LinearKernels& linear_kernels() {
  static const LinearKernels kernels = {kRowBlock, avx512bf16::linear_kernels().quantize,
                                        avx512bf16::linear_kernels().multiply, &kTileKernels,
                                        kTileRows};
  return kernels;
}

}  // namespace paceline::kernels::cpu::amx
HWY_POP_ATTRIBUTES
