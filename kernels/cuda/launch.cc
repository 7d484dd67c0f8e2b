#include "kernels/cuda/launch.h"

#include <vector>

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

bool overlaps_kernels() {
  constexpr int kLeastMajor = 9;  // sm_90
  static const std::vector<bool> of_device = [] {
    int count = 0;
    check_call("cudaGetDeviceCount", cudaGetDeviceCount(&count));
    std::vector<bool> overlaps;
    for (int device = 0; device < count; ++device) {
      int major = 0;
      check_call("cudaDeviceGetAttribute",
                 cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
      overlaps.push_back(major >= kLeastMajor);
    }
    return overlaps;
  }();
  int device = 0;
  check_call("cudaGetDevice", cudaGetDevice(&device));
  return of_device.at(static_cast<std::size_t>(device));
}

}  // namespace paceline::kernels::cuda
