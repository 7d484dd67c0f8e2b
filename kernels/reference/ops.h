#pragma once

#include "kernels/drafting_params.h"
#include "kernels/params.h"

/// Plain scalar versions, one thread. They define every op's exact order of operations; the other
/// CPU kernels give the same bits (a NaN stands for any NaN).
namespace paceline::kernels::reference {

void sum_partials(const SumPartialsParams& params);
void rms_norm(const RmsNormParams& params);
void rope_table(const RopeTableParams& params);
void rope_append(const RopeAppendParams& params);
void attention(const AttentionParams& params);
void gather_rows(const GatherRowsParams& params);
void join_rows(const JoinRowsParams& params);
void place_columns(const PlaceColumnsParams& params);
void activate(const ActivateParams& params);
void top_log_probs(const TopLogProbsParams& params);
void place_beams(const PlaceBeamsParams& params);
void extend_beams(const ExtendBeamsParams& params);
void merge_beams(const MergeBeamsParams& params);
void resume_sequences(const ResumeSequencesParams& params);
void place_trees(const PlaceTreesParams& params);
void accept_paths(const AcceptPathsParams& params);
void compact_kv(const CompactKvParams& params);
void select_tokens(const SelectTokensParams& params);
void largest_logits(const LargestLogitsParams& params);
void merge_largest(const MergeLargestParams& params);
void token_log_probs(const TokenLogProbsParams& params);
void sum_words(const SumWordsParams& params);

/// LinearInput's kSiluMul, element by element: all are [count].
void silu_mul(const float* gate, const float* up, float* out, std::int64_t count);

}  // namespace paceline::kernels::reference
