#pragma once

#include <cuda_runtime.h>

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "kernels/core/formats.h"

namespace paceline::kernels::cuda {

/// out[m, n] = sum over k of in[m, k] * weight[n, k], all row-major; both operands are in `format`,
/// kBf16 or kFp16, sum and result fp32.
struct MatmulProblem {
  WeightFormat format = WeightFormat::kBf16;
  std::int64_t outputs = 0;   // N
  std::int64_t inputs = 0;    // K
  std::int64_t rows = 0;      // M
  std::int64_t stride = 0;    // elements from an operand's row to its next; an output's is N
  int operand_alignment = 0;  // bytes: what the operands' addresses are multiples of
  int out_alignment = 0;
  auto operator<=>(const MatmulProblem&) const = default;
};

/// How the library solves one problem; its own words.
struct MatmulAlgorithm {
  std::array<std::uint64_t, 8> words = {};
  std::size_t workspace_bytes = 0;
};

/// What Paceline calls of cuBLASLt, so that tests can put something else in its place. Errors are
/// FatalErrors. The calls are for the calling thread's current device.
class CublasLtCalls {
 public:
  virtual ~CublasLtCalls() = default;
  CublasLtCalls() = default;
  CublasLtCalls(const CublasLtCalls&) = delete;
  CublasLtCalls& operator=(const CublasLtCalls&) = delete;

  /// "130100": 13.1.0.
  virtual std::string version() const = 0;
  /// The library's first choice among what needs no more workspace than this, the same whenever it
  /// is asked. Puts nothing on a stream.
  virtual MatmulAlgorithm choose(const MatmulProblem& problem, std::size_t most_workspace) = 0;
  /// Puts the product on the stream, which may be recorded. `workspace` is its own until it has
  /// run, 256-byte aligned and as large as the algorithm asks.
  virtual void multiply(const MatmulProblem& problem, const MatmulAlgorithm& algorithm,
                        const void* weight, const void* in, float* out,
                        std::span<std::byte> workspace, cudaStream_t stream) = 0;
};

/// Why there is no cuBLASLt here; empty if there is.
std::string cublaslt_missing();

/// cuBLASLt itself. Throws ConfigError where it was not built.
std::unique_ptr<CublasLtCalls> make_cublaslt_calls();

}  // namespace paceline::kernels::cuda
