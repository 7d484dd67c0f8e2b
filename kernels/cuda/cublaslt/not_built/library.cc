#include "kernels/core/error.h"
#include "kernels/cuda/cublaslt/calls.h"

namespace paceline::kernels::cuda {

std::string cublaslt_missing() {
  return "this paceline was built without cuBLASLt (see PACELINE_CUBLASLT in docs/cuda.md)";
}

std::unique_ptr<CublasLtCalls> make_cublaslt_calls() {
  throw ConfigError("--numerics fast: {}", cublaslt_missing());
}

}  // namespace paceline::kernels::cuda
