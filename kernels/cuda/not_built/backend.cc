#include "kernels/cuda/backend.h"

#include "kernels/core/error.h"

namespace paceline::kernels {

CudaDevices find_cuda_devices() {
  return {0, "this paceline was built without CUDA (see PACELINE_CUDA in docs/cuda.md)"};
}

std::unique_ptr<Backend> make_cuda_backend(const CudaOptions&) {
  throw ConfigError("--device cuda: {}", find_cuda_devices().why_none);
}

}  // namespace paceline::kernels
