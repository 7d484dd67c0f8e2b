#include <gmock/gmock.h>

#include <cstdio>

#include "kernels/cuda/backend.h"

namespace {

constexpr int kSkipped = 77;  // what ctest is told to take for "skipped"

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  const paceline::kernels::CudaDevices devices = paceline::kernels::find_cuda_devices();
  if (devices.count == 0) {
    std::printf("skipped: %s\n", devices.why_none.c_str());
    return kSkipped;
  }
  return RUN_ALL_TESTS();
}
