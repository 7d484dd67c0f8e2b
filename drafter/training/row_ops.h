#pragma once

#include <cstdint>
#include <span>

#include "drafter/training/gemm.h"
#include "kernels/core/thread_pool.h"

/// What stands between the products of the head's forward and backward passes. Results do not
/// depend on the number of threads: rows, or columns, are independent.
namespace paceline::drafter {

/// out[r] = silu(in[r]), silu(x) = x / (1 + e^-x). `out` may be `in`.
void silu(ConstMatrix in, Matrix out, kernels::ThreadPool& pool);
/// out[r] = x[r] + silu(in[r])
void add_silu(ConstMatrix x, ConstMatrix in, Matrix out, kernels::ThreadPool& pool);
/// d_in[r] = d_out[r] * silu'(in[r]); d_in may be d_out or in.
void silu_gradient(ConstMatrix in, ConstMatrix d_out, Matrix d_in, kernels::ThreadPool& pool);
/// out[r] += bias
void add_bias(std::span<const float> bias, Matrix out, kernels::ThreadPool& pool);
/// sum += the sum of the rows, from the first to the last.
void add_row_sum(ConstMatrix rows, std::span<float> sum, kernels::ThreadPool& pool);

/// out[r] = in[index[r]]
void gather_rows(ConstMatrix in, std::span<const std::int32_t> index, Matrix out,
                 kernels::ThreadPool& pool);
/// out[index[r]] += in[r], from the first r to the last.
void scatter_add_rows(ConstMatrix in, std::span<const std::int32_t> index, Matrix out,
                      kernels::ThreadPool& pool);

/// Turns each row of logits into its softmax; negative_entropy[r] = sum of p log p.
void softmax(Matrix logits, std::span<float> negative_entropy, kernels::ThreadPool& pool);

/// What one row of the head's logits is to come to.
struct RowTarget {
  std::int32_t teacher_row = 0;  ///< of teacher probabilities and negative entropies
  std::int32_t token = 0;        ///< column of the token that follows
  float weight = 0;              ///< of the row's loss in the sum
};

/// The teacher's distributions over the draft vocabulary.
struct TeacherDistributions {
  ConstMatrix probabilities;                ///< [teacher rows, outputs]
  std::span<const float> negative_entropy;  ///< [teacher rows]
  float share = 1;  ///< of KL(teacher || head) in a row's loss; the rest is the cross-entropy
};

/// loss[r] = share KL(p || q) - (1 - share) log q[token], q = softmax(logits[r]), p the teacher's;
/// logits[r] becomes the gradient of weight * loss[r].
void distillation_loss(const TeacherDistributions& teacher, std::span<const RowTarget> targets,
                       Matrix logits, std::span<float> loss, kernels::ThreadPool& pool);

/// rank[r]: how many columns of logits[r] stand before that of the token: larger ones, and equal
/// ones of a lower index.
void target_ranks(ConstMatrix logits, std::span<const RowTarget> targets,
                  std::span<std::int32_t> rank, kernels::ThreadPool& pool);

}  // namespace paceline::drafter
