#pragma once

#include <memory>
#include <string>

#include "kernels/api.h"

// What the rest of the engine sees of CUDA. Where it was not built (PACELINE_CUDA), not_built/
// answers in its place.

namespace paceline::kernels {

struct CudaDevices {
  int count = 0;
  std::string why_none = {};  // where count is 0: for people
};

/// The GPUs that this process can use.
CudaDevices find_cuda_devices();

struct CudaOptions {
  int device = 0;      // below CudaDevices::count
  bool graphs = true;  // Backend::repeat records what it repeats
  int threads = 1;     // that read and convert weights when they are packed
  // Products with bf16 and fp16 weights by cuBLASLt: a row's result may depend on the batch.
  bool fast = false;
};

/// Throws ConfigError if there is no such device, or none that these kernels were compiled for, or
/// no cuBLASLt for `fast`.
std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options);

}  // namespace paceline::kernels
