#pragma once

#include "kernels/core/thread_pool.h"
#include "kernels/cpu/row_ops.h"
#include "kernels/drafting_params.h"
#include "kernels/params.h"

/// The ops of kernels/api.h but for `linear` and `embed`, their rows (or heads, or parts of the
/// vocabulary) shared out to the threads of a pool. Results depend neither on the number of threads
/// nor on the instruction set.
namespace paceline::kernels::cpu {

void sum_partials(const SumPartialsParams& params, const RowOps& ops, ThreadPool& pool);
void rms_norm(const RmsNormParams& params, const RowOps& ops, ThreadPool& pool);
void rope_table(const RopeTableParams& params, const RowOps& ops, ThreadPool& pool);
void rope_append(const RopeAppendParams& params, const RowOps& ops, ThreadPool& pool);
void attention(const AttentionParams& params, const RowOps& ops, ThreadPool& pool);
void gather_rows(const GatherRowsParams& params, const RowOps& ops, ThreadPool& pool);
void join_rows(const JoinRowsParams& params, const RowOps& ops, ThreadPool& pool);
void place_columns(const PlaceColumnsParams& params, const RowOps& ops, ThreadPool& pool);
void activate(const ActivateParams& params, const RowOps& ops, ThreadPool& pool);
void top_log_probs(const TopLogProbsParams& params, const RowOps& ops, ThreadPool& pool);
void place_beams(const PlaceBeamsParams& params);
void extend_beams(const ExtendBeamsParams& params, ThreadPool& pool);
void merge_beams(const MergeBeamsParams& params, ThreadPool& pool);
void resume_sequences(const ResumeSequencesParams& params);
void place_trees(const PlaceTreesParams& params);
void accept_paths(const AcceptPathsParams& params);
void compact_kv(const CompactKvParams& params, const RowOps& ops, ThreadPool& pool);
void select_tokens(const SelectTokensParams& params, const RowOps& ops, ThreadPool& pool);
void largest_logits(const LargestLogitsParams& params, const RowOps& ops, ThreadPool& pool);
void merge_largest(const MergeLargestParams& params);
void token_log_probs(const TokenLogProbsParams& params, const RowOps& ops, ThreadPool& pool);
void sum_words(const SumWordsParams& params, ThreadPool& pool);

}  // namespace paceline::kernels::cpu
