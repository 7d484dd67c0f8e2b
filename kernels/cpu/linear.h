#pragma once

#include <memory>

#include "kernels/api.h"
#include "kernels/core/host_arena.h"
#include "kernels/core/thread_pool.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/params.h"

namespace paceline::kernels::cpu {

/// The products and look-ups of one backend, and the memory that they work in.
class Linear {
 public:
  Linear(Isa isa, ThreadPool& pool) : Linear(linear_kernels(isa), pool) {}
  Linear(const LinearKernels& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool) {}

  std::unique_ptr<PackedMatrix> pack(const HostMatrix& matrix, const Reduction& reduction);
  void linear(const LinearParams& params);
  void embed(const EmbedParams& params);

 private:
  // Quantizes or rounds params.in to the scratch memory, which grows but never shrinks.
  const std::byte* quantize(const LinearParams& params, const LinearKernels& kernels,
                            const QuantizedLayout& layout);

  const LinearKernels& kernels_;
  ThreadPool& pool_;
  Buffer scratch_;
  HostArena arena_;  // of packed matrices
};

}  // namespace paceline::kernels::cpu
