#include "kernels/cuda/launch.h"

#include "kernels/core/error.h"

namespace paceline::kernels::cuda {

void fail(const std::string& message) { throw FatalError("{}", message); }

void check_call(const char* call, cudaError_t status) {
  check(status == cudaSuccess, "{}: {} ({})", call, cudaGetErrorString(status),
        cudaGetErrorName(status));
}

void check_launch(const char* op, cudaError_t status) {
  check(status == cudaSuccess, "{}: the kernel cannot be launched: {} ({})", op,
        cudaGetErrorString(status), cudaGetErrorName(status));
}

}  // namespace paceline::kernels::cuda
