#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "hwy/base.h"
#include "kernels/core/quantize.h"
#include "kernels/core/reduction.h"
#include "kernels/cpu/linear_kernels.h"

HWY_PUSH_ATTRIBUTES("avx2,fma,f16c,bmi2")
namespace paceline::kernels::cpu::avx2 {
namespace {

#include "kernels/cpu/vector_avx2-inl.h"

#include "kernels/cpu/linear_tiles-inl.h"
//
#include "kernels/cpu/linear_products-inl.h"

}  // namespace

const LinearKernels& linear_kernels() {
  static constexpr LinearKernels kKernels = {kRowBlock, quantize, multiply};
  return kKernels;
}

}  // namespace paceline::kernels::cpu::avx2
HWY_POP_ATTRIBUTES
