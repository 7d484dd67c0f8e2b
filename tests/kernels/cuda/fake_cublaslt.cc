#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/core/error.h"
#include "kernels/core/half.h"
#include "kernels/cuda/cublaslt/calls.h"
#include "kernels/cuda/elements.h"
#include "kernels/cuda/intrinsics.h"
#include "kernels/cuda/launch.h"

// What stands in for cuBLASLt where the kernels run on the CPU: a kernel of plain loops, which adds
// from the last input to the first, so that its sums are not ours. As strict as the library, and
// stricter: an algorithm is for the very problem that it was chosen for.

namespace paceline::kernels::cuda {
namespace {

constexpr std::size_t kWanted = 4096;  // bytes of workspace

__global__ void fake_matmul_kernel(MatmulProblem problem, const std::uint16_t* weight,
                                   const std::uint16_t* in, float* out, std::byte* workspace) {
  join_stream();
  for (std::int64_t i = first_element(); i < std::int64_t{kWanted}; i += element_step()) {
    workspace[i] = std::byte{0xff};
  }
  const auto value = [&](std::uint16_t bits) {
    return problem.format == WeightFormat::kBf16 ? bf16_to_fp32(bits) : fp16_to_fp32(bits);
  };
  for (std::int64_t i = first_element(); i < problem.rows * problem.outputs; i += element_step()) {
    const std::uint16_t* of_row = in + i / problem.outputs * problem.stride;
    const std::uint16_t* of_output = weight + i % problem.outputs * problem.stride;
    float sum = 0.0f;
    for (std::int64_t k = problem.inputs - 1; k >= 0; --k) {
      sum = std::fma(value(of_row[k]), value(of_output[k]), sum);
    }
    out[i] = sum;
  }
}

bool is_aligned(const void* address, int alignment) {
  return std::has_single_bit(static_cast<unsigned>(alignment)) &&
         reinterpret_cast<std::uintptr_t>(address) % static_cast<unsigned>(alignment) == 0;
}

std::array<std::uint64_t, 8> words_of(const MatmulProblem& problem) {
  return {static_cast<std::uint64_t>(problem.format),
          static_cast<std::uint64_t>(problem.outputs),
          static_cast<std::uint64_t>(problem.inputs),
          static_cast<std::uint64_t>(problem.rows),
          static_cast<std::uint64_t>(problem.stride),
          static_cast<std::uint64_t>(problem.operand_alignment),
          static_cast<std::uint64_t>(problem.out_alignment),
          0xfa4e};
}

class FakeCublasLt final : public CublasLtCalls {
 public:
  std::string version() const override { return "0"; }

  MatmulAlgorithm choose(const MatmulProblem& problem, std::size_t most_workspace) override {
    check(problem.rows > 0 && problem.outputs > 0 && problem.inputs > 0 &&
              problem.stride >= problem.inputs,
          "fake cuBLASLt: {} rows times [{}, {}], {} apart", problem.rows, problem.outputs,
          problem.inputs, problem.stride);
    check(most_workspace >= kWanted, "fake cuBLASLt: a workspace of {} bytes", most_workspace);
    return {words_of(problem), kWanted};
  }

  void multiply(const MatmulProblem& problem, const MatmulAlgorithm& algorithm, const void* weight,
                const void* in, float* out, std::span<std::byte> workspace,
                cudaStream_t stream) override {
    check(algorithm.words == words_of(problem), "fake cuBLASLt: another problem's algorithm");
    check(is_aligned(weight, problem.operand_alignment) &&
              is_aligned(in, problem.operand_alignment) && is_aligned(out, problem.out_alignment) &&
              is_aligned(workspace.data(), 256),
          "fake cuBLASLt: operands are not aligned as they are said to be");
    check(workspace.size() >= algorithm.workspace_bytes, "fake cuBLASLt: a workspace of {} bytes",
          workspace.size());
    launch("fake cublasLtMatmul", shape_of_elements(problem.rows * problem.outputs), stream,
           fake_matmul_kernel, problem, static_cast<const std::uint16_t*>(weight),
           static_cast<const std::uint16_t*>(in), out, workspace.data());
  }
};

}  // namespace

std::string cublaslt_missing() { return ""; }

std::unique_ptr<CublasLtCalls> make_cublaslt_calls() { return std::make_unique<FakeCublasLt>(); }

}  // namespace paceline::kernels::cuda
