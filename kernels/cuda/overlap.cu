#include <array>
#include <atomic>

#include "kernels/cuda/intrinsics.h"
#include "kernels/cuda/launch.h"

namespace paceline::kernels::cuda {
namespace {

// Stands for all: they are compiled for the same GPUs.
__global__ void any_kernel() { join_stream(); }

// By what was compiled, not by the GPU: one of sm_90 can also run code made for sm_80, which does
// not wait.
bool ask_current_device() {
  constexpr int kLeastVersion = 90;  // sm_90
  cudaFuncAttributes attributes;
  check_call("cudaFuncGetAttributes", cudaFuncGetAttributes(&attributes, any_kernel));
  return attributes.ptxVersion >= kLeastVersion;
}

}  // namespace

bool overlaps_kernels() {
  // Each device is asked once, and not before it is used: that would take memory on all of them.
  enum Answer { kUnknown, kNo, kYes };
  constexpr int kMostKept = 64;
  static std::array<std::atomic<int>, kMostKept> answers{};
  int device = 0;
  check_call("cudaGetDevice", cudaGetDevice(&device));
  if (device >= kMostKept) return ask_current_device();
  std::atomic<int>& answer = answers[static_cast<std::size_t>(device)];
  if (answer.load() == kUnknown) answer.store(ask_current_device() ? kYes : kNo);
  return answer.load() == kYes;
}

}  // namespace paceline::kernels::cuda
