#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "kernels/api.h"
#include "kernels/cuda/cublaslt/calls.h"
#include "kernels/cuda/row_major_matrix.h"
#include "kernels/params.h"

namespace paceline::kernels::cuda {

/// `linear` by cuBLASLt, for --numerics fast: a row's result may depend on how many come with it.
/// The library's choice for a problem is asked for once and kept.
class LibraryProducts {
 public:
  /// What the library may use beside its operands, from the start on: what NVIDIA advises for
  /// sm_90.
  static constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;

  LibraryProducts(std::unique_ptr<CublasLtCalls> calls, Backend& device);

  /// "cublaslt130100".
  std::string name() const { return "cublaslt" + calls_->version(); }

  /// Elements of a workspace for `linear`.
  static std::int64_t rounded_count(const RowMajorMatrix& matrix, std::int64_t rows) {
    return rows * matrix.stride();
  }

  /// One product for each of the reduction's outputs, over all of its columns at once: the library
  /// orders the additions. What params.input makes of the activations is rounded to the matrix's
  /// format first (kernels/core/half.h; beyond fp16's 65504: infinity), to `rounded`
  /// [rounded_count(matrix, params.rows)], 16-byte aligned. While the stream is `recording` nothing
  /// new may be asked for: such a product has run before.
  void linear(const LinearParams& params, const RowMajorMatrix& matrix, std::uint16_t* rounded,
              bool recording, cudaStream_t stream);

  /// Problems that the library was asked about.
  std::size_t known() const { return algorithms_.size(); }

 private:
  const MatmulAlgorithm& algorithm_for(const MatmulProblem& problem, bool recording);

  std::unique_ptr<CublasLtCalls> calls_;
  Buffer workspace_;
  std::map<MatmulProblem, MatmulAlgorithm> algorithms_;
};

}  // namespace paceline::kernels::cuda
