#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

// How a kernel is put on a stream: everything in kernels/cuda goes through `launch`. The tests
// build the same sources with g++ and a cuda_runtime.h of their own, which runs the threads on the
// CPU (tests/support/simt), so there is no <<<>>> and no other syntax that only nvcc knows.
//
// nvcc 13 does not compile fmt 9 as C++20: a .cu file must not include kernels/core/error.h.

namespace paceline::kernels::cuda {

/// Throws a FatalError with this message.
[[noreturn]] void fail(const std::string& message);

/// Throws a FatalError that names the call of CUDA's runtime unless `status` is cudaSuccess.
void check_call(const char* call, cudaError_t status);

/// Throws a FatalError that names the op unless `status` is cudaSuccess.
void check_launch(const char* op, cudaError_t status);

/// Whether kernels may begin on the current device while those before them run.
bool overlaps_kernels();

/// One-dimensional: every kernel computes from its number what a block works on.
struct LaunchShape {
  std::int64_t blocks = 0;  // below 2^31; 0: there is nothing to do
  int threads = 0;          // per block
  std::size_t shared_bytes = 0;
  /// It begins when all before it has been done, whatever that is; await_stream() is not called.
  bool after_all = false;
};

/// The kernel calls await_stream() (kernels/cuda/intrinsics.h).
template <typename... Parameters, typename... Arguments>
void launch(const char* op, const LaunchShape& shape, cudaStream_t stream,
            void (*kernel)(Parameters...), Arguments&&... arguments) {
  if (shape.blocks == 0) return;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(shape.blocks));
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  cudaLaunchAttribute early;
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  if (!shape.after_all && overlaps_kernels()) {
    config.attrs = &early;
    config.numAttrs = 1;
  }
  check_launch(op, cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...));
}

}  // namespace paceline::kernels::cuda
