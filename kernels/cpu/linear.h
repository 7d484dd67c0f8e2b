#pragma once

#include <memory>

#include "kernels/api.h"
#include "kernels/core/host_arena.h"
#include "kernels/core/thread_pool.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/row_ops.h"
#include "kernels/params.h"

namespace paceline::kernels::cpu {

/// The products and look-ups of one backend, and the memory that they work in.
class Linear {
 public:
  Linear(Isa isa, ThreadPool& pool) : Linear(linear_kernels(isa), row_ops(isa), pool) {}
  Linear(const LinearKernels& kernels, const RowOps& row_ops, ThreadPool& pool)
      : kernels_(kernels), row_ops_(row_ops), pool_(pool) {}

  std::unique_ptr<PackedMatrix> pack(const MatrixSource& matrix, const Reduction& reduction);
  void linear(const LinearParams& params);
  void embed(const EmbedParams& params);

 private:
  // What is multiplied, as the layout says: params.in, or what its input stage and the quantizer
  // (bf16: rounding) make of it in memory that grows but never shrinks.
  const std::byte* prepare(const LinearParams& params, const LinearKernels& kernels,
                           const QuantizedLayout& layout);
  // Some columns of a row as fp32: of params.in, or what its input stage writes to their places in
  // `row` [cols]. A norm is of all columns.
  const float* prepare_row(const LinearParams& params, std::int64_t m, IndexRange cols,
                           float* row) const;

  const LinearKernels& kernels_;
  const RowOps& row_ops_;
  ThreadPool& pool_;
  Buffer quantized_;
  Buffer rows_;
  HostArena arena_;  // of packed matrices
};

}  // namespace paceline::kernels::cpu
