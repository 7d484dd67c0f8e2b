#include "kernels/cpu/row_ops.h"

#include "kernels/core/error.h"

// This file is compiled once per instruction set by foreach_target.h; the baseline pass comes last
// and only holds the choice.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/row_ops.cc"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4)
#include "hwy/foreach_target.h"
//
#include "hwy/highway.h"

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
#include "kernels/cpu/attention-inl.h"
#include "kernels/cpu/rows-inl.h"
#include "kernels/cpu/select-inl.h"
#include "kernels/cpu/top_log_probs-inl.h"

HWY_BEFORE_NAMESPACE();
namespace paceline::kernels::cpu {
namespace HWY_NAMESPACE {

extern const RowOps kRowOps;
const RowOps kRowOps = {
    .sum_partials = sum_partials,
    .rms_norm = rms_norm,
    .rope_table = rope_table,
    .rope_append = rope_append,
    .silu_mul = silu_mul,
    .token_log_probs = token_log_probs,
    .activate = activate,
    .top_log_probs = top_log_probs,
    .attention_segment = attention_segment,
    .attention_merge = attention_merge,
    .attention_store = attention_store,
    .largest_logit = largest_logit,
    .nucleus_bins = nucleus_bins,
    .tokens_in_bin = tokens_in_bin,
    .noisy_best = noisy_best,
};

}  // namespace HWY_NAMESPACE
}  // namespace paceline::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif

#if HWY_ONCE
namespace paceline::kernels::cpu {

const RowOps& row_ops(Isa isa) {
  switch (isa) {
    case Isa::kAvx2:
      return N_AVX2::kRowOps;
    case Isa::kAvx512:
    case Isa::kAvx512Vnni:
    case Isa::kAvx512Bf16:
    case Isa::kAmx:
      return N_AVX3::kRowOps;
  }
  throw FatalError("no row kernels for instruction set {}", static_cast<int>(isa));
}

}  // namespace paceline::kernels::cpu
#endif
