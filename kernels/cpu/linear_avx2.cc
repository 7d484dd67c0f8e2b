#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "hwy/base.h"
#include "kernels/core/float_environment.h"
#include "kernels/core/half.h"
#include "kernels/core/quantize.h"
#include "kernels/core/reduction.h"
#include "kernels/cpu/linear_kernels.h"

HWY_PUSH_ATTRIBUTES("avx2,fma,f16c,bmi2")
namespace paceline::kernels::cpu::avx2 {
namespace {

#include "kernels/cpu/vector_avx2-inl.h"

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

}  // namespace paceline::kernels::cpu::avx2
HWY_POP_ATTRIBUTES
