#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/drafting_params.h"
#include "kernels/params.h"

/// Ops of kernels/api.h as CUDA kernels, each put on a stream and not waited for. The results are
/// those of kernels/reference/, bit by bit (a NaN stands for any NaN), but for `linear` in some
/// formats and `attention` in bf16. Where the reference refuses
/// values that stand in device memory (a move, a target), the kernel traps: the stream's next
/// synchronization fails.
namespace paceline::kernels::cuda {

/// Device memory that `linear` works in for so many rows: activations as its kernel wants them, and
/// the segments' sums where the reduction merges some.
std::size_t linear_workspace_bytes(const PackedMatrix& weight, std::int64_t rows);

/// kBf16 and kFp16 multiply on the tensor core: the activations are first rounded to the weights'
/// format (beyond fp16's 65504: infinity). So does kFp8, activations and weights as fp16,
/// activations divided by kFp8RowScale before (beyond a million: infinity). The products are exact;
/// a segment's sum runs from 16 inputs to the next 16, ascending, in fp32; how it runs inside of 16
/// is the GPU's. On the CPU it is the reference's chain. All other formats are the reference's bit
/// by bit everywhere. In every format a row's result depends on that row and the matrix alone.
///
/// `workspace` holds at least linear_workspace_bytes, 16-byte aligned, and is the op's until it
/// has run.
void linear(const LinearParams& params, std::span<std::byte> workspace, cudaStream_t stream);
void embed(const EmbedParams& params, cudaStream_t stream);
void sum_partials(const SumPartialsParams& params, cudaStream_t stream);
void rms_norm(const RmsNormParams& params, cudaStream_t stream);
void rope_table(const RopeTableParams& params, cudaStream_t stream);
void rope_append(const RopeAppendParams& params, cudaStream_t stream);
/// Floats of workspace with which a row's segments run at the same time; 0: there is no need.
std::int64_t attention_workspace(const AttentionParams& params);
/// `workspace` [attention_workspace(params)], or null: fewer blocks, the same result.
/// AttentionMath::kBf16 multiplies on the tensor core, 16 products after another as kernels/params.h
/// says; how it adds those is the GPU's. On the CPU it is the reference's chain.
void attention(const AttentionParams& params, float* workspace, cudaStream_t stream);
void gather_rows(const GatherRowsParams& params, cudaStream_t stream);
void join_rows(const JoinRowsParams& params, cudaStream_t stream);
void place_columns(const PlaceColumnsParams& params, cudaStream_t stream);
void activate(const ActivateParams& params, cudaStream_t stream);
void top_log_probs(const TopLogProbsParams& params, cudaStream_t stream);
void place_beams(const PlaceBeamsParams& params, cudaStream_t stream);
void extend_beams(const ExtendBeamsParams& params, cudaStream_t stream);
void merge_beams(const MergeBeamsParams& params, cudaStream_t stream);
void resume_sequences(const ResumeSequencesParams& params, cudaStream_t stream);
void place_trees(const PlaceTreesParams& params, cudaStream_t stream);
void accept_paths(const AcceptPathsParams& params, cudaStream_t stream);
void compact_kv(const CompactKvParams& params, cudaStream_t stream);
void select_tokens(const SelectTokensParams& params, cudaStream_t stream);
void largest_logits(const LargestLogitsParams& params, cudaStream_t stream);
void merge_largest(const MergeLargestParams& params, cudaStream_t stream);
void token_log_probs(const TokenLogProbsParams& params, cudaStream_t stream);
void sum_words(const SumWordsParams& params, cudaStream_t stream);

}  // namespace paceline::kernels::cuda
