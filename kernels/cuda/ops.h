#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/params.h"

/// Ops of kernels/api.h as CUDA kernels, each put on a stream and not waited for. The results are
/// those of kernels/reference/, bit by bit (a NaN stands for any NaN). Where the reference refuses
/// values that stand in device memory (a move, a target), the kernel traps: the stream's next
/// synchronization fails.
namespace paceline::kernels::cuda {

void embed(const EmbedParams& params, cudaStream_t stream);
void sum_partials(const SumPartialsParams& params, cudaStream_t stream);
void rms_norm(const RmsNormParams& params, cudaStream_t stream);
void rope_table(const RopeTableParams& params, cudaStream_t stream);
void rope_append(const RopeAppendParams& params, cudaStream_t stream);
/// Floats of workspace with which a row's segments run at the same time; 0: there is no need.
std::int64_t attention_workspace(const AttentionParams& params);
/// `workspace` [attention_workspace(params)], or null: fewer blocks, the same result.
void attention(const AttentionParams& params, float* workspace, cudaStream_t stream);
void silu_mul(const SiluMulParams& params, cudaStream_t stream);
void gather_rows(const GatherRowsParams& params, cudaStream_t stream);
void join_rows(const JoinRowsParams& params, cudaStream_t stream);
void place_columns(const PlaceColumnsParams& params, cudaStream_t stream);
void activate(const ActivateParams& params, cudaStream_t stream);
void top_log_probs(const TopLogProbsParams& params, cudaStream_t stream);
void compact_kv(const CompactKvParams& params, cudaStream_t stream);
void select_tokens(const SelectTokensParams& params, cudaStream_t stream);
void largest_logits(const LargestLogitsParams& params, cudaStream_t stream);
void token_log_probs(const TokenLogProbsParams& params, cudaStream_t stream);
void sum_words(const SumWordsParams& params, cudaStream_t stream);

}  // namespace paceline::kernels::cuda
