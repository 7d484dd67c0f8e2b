#include "kernels/cuda/library_products.h"

#include <algorithm>
#include <utility>

#include "kernels/core/error.h"
#include "kernels/cuda/linear_rows.h"
#include "kernels/cuda/row_major.h"

namespace paceline::kernels::cuda {
namespace {

/// The largest power of two, up to what any kernel asks for, that an address is a multiple of.
int alignment_of(const void* address) {
  constexpr std::uintptr_t kMost = 16;
  const auto bits = reinterpret_cast<std::uintptr_t>(address) | kMost;
  return static_cast<int>(bits & (~bits + 1));
}

}  // namespace

LibraryProducts::LibraryProducts(std::unique_ptr<CublasLtCalls> calls, Backend& device)
    : calls_(std::move(calls)), workspace_(device.allocate(kWorkspaceBytes)) {}

const MatmulAlgorithm& LibraryProducts::algorithm_for(const MatmulProblem& problem,
                                                      bool recording) {
  const auto found = algorithms_.find(problem);
  if (found != algorithms_.end()) return found->second;
  check(!recording,
        "cuBLASLt: {} rows times [{}, {}] come for the first time while a graph is "
        "recorded",
        problem.rows, problem.outputs, problem.inputs);
  return algorithms_.emplace(problem, calls_->choose(problem, kWorkspaceBytes)).first->second;
}

void LibraryProducts::linear(const LinearParams& params, const RowMajorMatrix& matrix,
                             std::uint16_t* rounded, bool recording, cudaStream_t stream) {
  lay_out_rows(matrix, params, rounded, stream);
  const std::int64_t size = params.rows * matrix.rows();
  if (size == 0) return;
  float* out = params.out;
  for (const IndexRange& cols : matrix.sums()) {
    if (cols.size() == 0) {
      write_zeros(out, size, stream);
    } else {
      const std::uint16_t* const weight = matrix.values() + cols.begin;
      const std::uint16_t* const in = rounded + cols.begin;
      const MatmulProblem problem{
          .format = matrix.format(),
          .outputs = matrix.rows(),
          .inputs = cols.size(),
          .rows = params.rows,
          .stride = matrix.stride(),
          .operand_alignment = std::min(alignment_of(weight), alignment_of(in)),
          .out_alignment = alignment_of(out)};
      calls_->multiply(problem, algorithm_for(problem, recording), weight, in, out,
                       {workspace_.as<std::byte>(), kWorkspaceBytes}, stream);
    }
    out += size;
  }
}

}  // namespace paceline::kernels::cuda
