#include <cublasLt.h>
#include <dlfcn.h>

#include <algorithm>
#include <iterator>

#include "kernels/core/error.h"
#include "kernels/cuda/cublaslt/calls.h"

namespace paceline::kernels::cuda {
namespace {

/// What is called of the library. It is loaded when it is asked for, not linked: that takes 0.2 s
/// and 90 MB of every process.
struct Functions {
  void* const library = open();
  decltype(&cublasLtGetVersion) version = find<decltype(version)>("cublasLtGetVersion");
  decltype(&cublasLtGetStatusName) status_name =
      find<decltype(status_name)>("cublasLtGetStatusName");
  decltype(&cublasLtGetStatusString) status_string =
      find<decltype(status_string)>("cublasLtGetStatusString");
  decltype(&cublasLtCreate) create = find<decltype(create)>("cublasLtCreate");
  decltype(&cublasLtDestroy) destroy = find<decltype(destroy)>("cublasLtDestroy");
  decltype(&cublasLtMatmulDescInit_internal) init_product =
      find<decltype(init_product)>("cublasLtMatmulDescInit_internal");
  decltype(&cublasLtMatmulDescSetAttribute) set_product =
      find<decltype(set_product)>("cublasLtMatmulDescSetAttribute");
  decltype(&cublasLtMatrixLayoutInit_internal) init_layout =
      find<decltype(init_layout)>("cublasLtMatrixLayoutInit_internal");
  decltype(&cublasLtMatmulPreferenceInit_internal) init_preference =
      find<decltype(init_preference)>("cublasLtMatmulPreferenceInit_internal");
  decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference =
      find<decltype(set_preference)>("cublasLtMatmulPreferenceSetAttribute");
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic =
      find<decltype(heuristic)>("cublasLtMatmulAlgoGetHeuristic");
  decltype(&cublasLtMatmul) matmul = find<decltype(matmul)>("cublasLtMatmul");

  void check_status(const char* call, cublasStatus_t status) const {
    check(status == CUBLAS_STATUS_SUCCESS, "{}: {} ({})", call, status_string(status),
          status_name(status));
  }

 private:
  // The one that the loader knows, or else the one that was there when this was built. It stays
  // loaded: its state is the process's.
  static void* open() {
    const std::string name = fmt::format("libcublasLt.so.{}", CUBLAS_VER_MAJOR);
    void* found = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (found == nullptr) found = dlopen(PACELINE_CUBLASLT_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (found == nullptr) {
      throw ConfigError("--numerics fast: {} cannot be loaded: {}", name, dlerror());
    }
    return found;
  }

  template <typename Function>
  Function find(const char* name) const {
    void* const found = dlsym(library, name);
    if (found == nullptr) throw ConfigError("--numerics fast: libcublasLt has no {}", name);
    return reinterpret_cast<Function>(found);
  }
};

/// The library's matrices are column-major, so ours are transposed there: out [N, M] = weight,
/// which is [K, N], transposed, times in [K, M].
struct Descriptions {
  cublasLtMatmulDescOpaque_t product;
  cublasLtMatrixLayoutOpaque_t weight;
  cublasLtMatrixLayoutOpaque_t in;
  cublasLtMatrixLayoutOpaque_t out;

  Descriptions(const Functions& call, const MatmulProblem& problem) {
    call.check_status("cublasLtMatmulDescInit",
                      call.init_product(&product, sizeof(product), CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const cublasOperation_t transposed = CUBLAS_OP_T;
    call.check_status(
        "cublasLtMatmulDescSetAttribute",
        call.set_product(&product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)));
    const cudaDataType_t operand = problem.format == WeightFormat::kBf16 ? CUDA_R_16BF : CUDA_R_16F;
    const auto lay_out = [&](cublasLtMatrixLayoutOpaque_t& layout, cudaDataType_t type,
                             std::int64_t rows, std::int64_t cols, std::int64_t stride) {
      call.check_status(
          "cublasLtMatrixLayoutInit",
          call.init_layout(&layout, sizeof(layout), type, static_cast<std::uint64_t>(rows),
                           static_cast<std::uint64_t>(cols), stride));
    };
    lay_out(weight, operand, problem.inputs, problem.outputs, problem.stride);
    lay_out(in, operand, problem.inputs, problem.rows, problem.stride);
    lay_out(out, CUDA_R_32F, problem.outputs, problem.rows, problem.outputs);
  }
};

class CublasLtLibrary final : public CublasLtCalls {
 public:
  CublasLtLibrary() { call_.check_status("cublasLtCreate", call_.create(&handle_)); }
  ~CublasLtLibrary() override { (void)call_.destroy(handle_); }

  std::string version() const override { return std::to_string(call_.version()); }

  MatmulAlgorithm choose(const MatmulProblem& problem, std::size_t most_workspace) override {
    Descriptions described(call_, problem);
    cublasLtMatmulPreferenceOpaque_t preference;
    call_.check_status("cublasLtMatmulPreferenceInit",
                       call_.init_preference(&preference, sizeof(preference)));
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
      call_.check_status("cublasLtMatmulPreferenceSetAttribute",
                         call_.set_preference(&preference, attribute, &value, sizeof(value)));
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, most_workspace);
    // Parts of a sum meet in fp32, in an order that does not depend on who is done first.
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
           std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
    const auto operands = static_cast<std::uint32_t>(problem.operand_alignment);
    const auto out = static_cast<std::uint32_t>(problem.out_alignment);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, operands);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, operands);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, out);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out);
    cublasLtMatmulHeuristicResult_t best{};
    int found = 0;
    const cublasStatus_t status =
        call_.heuristic(handle_, &described.product, &described.weight, &described.in,
                        &described.out, &described.out, &preference, 1, &best, &found);
    check(status == CUBLAS_STATUS_SUCCESS && found > 0 && best.state == CUBLAS_STATUS_SUCCESS,
          "cublasLtMatmulAlgoGetHeuristic: nothing for {} rows times [{}, {}] of {}: {}",
          problem.rows, problem.outputs, problem.inputs, format_name(problem.format),
          call_.status_string(found > 0 ? best.state : status));
    MatmulAlgorithm algorithm;
    static_assert(sizeof(best.algo.data) == sizeof(algorithm.words));
    std::copy(std::begin(best.algo.data), std::end(best.algo.data), algorithm.words.begin());
    algorithm.workspace_bytes = best.workspaceSize;
    return algorithm;
  }

  void multiply(const MatmulProblem& problem, const MatmulAlgorithm& algorithm, const void* weight,
                const void* in, float* out, std::span<std::byte> workspace,
                cudaStream_t stream) override {
    Descriptions described(call_, problem);
    cublasLtMatmulAlgo_t algo;
    std::copy(algorithm.words.begin(), algorithm.words.end(), std::begin(algo.data));
    const float one = 1, zero = 0;
    call_.check_status(
        "cublasLtMatmul",
        call_.matmul(handle_, &described.product, &one, weight, &described.weight, in,
                     &described.in, &zero, out, &described.out, out, &described.out, &algo,
                     workspace.data(), workspace.size(), stream));
  }

 private:
  Functions call_;
  cublasLtHandle_t handle_ = nullptr;
};

}  // namespace

std::string cublaslt_missing() { return ""; }

std::unique_ptr<CublasLtCalls> make_cublaslt_calls() { return std::make_unique<CublasLtLibrary>(); }

}  // namespace paceline::kernels::cuda
