#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/api.h"

namespace paceline::kernels::cuda {

/// What goes to the device from ordinary host memory, by way of a ring of pinned memory: CUDA waits
/// for the stream before it copies from memory that is not pinned, and so the host would never get
/// ahead of the device.
class UploadRing {
 public:
  static constexpr std::size_t kHalfBytes = std::size_t{4} << 20;

  UploadRing() = default;
  ~UploadRing();
  UploadRing(const UploadRing&) = delete;
  UploadRing& operator=(const UploadRing&) = delete;

  /// `host` may be written again at once. More than half the ring goes without it.
  void copy(void* device, const void* host, std::size_t bytes, cudaStream_t stream);

 private:
  struct Half {
    std::byte* memory = nullptr;
    cudaEvent_t copied = nullptr;  // all that it held when it was left
  };
  void open();

  std::array<Half, 2> halves_;
  std::size_t current_ = 0;
  std::size_t used_ = 0;  // of the current half
};

/// Into pinned memory.
class PinnedReadback final : public Readback {
 public:
  /// Of what is on this device's stream, which must outlive it. `wait` is told when the host waits.
  PinnedReadback(int device, cudaStream_t stream, std::shared_ptr<DeviceWait> wait)
      : device_(device), stream_(stream), wait_(std::move(wait)) {}
  ~PinnedReadback() override;
  void start(std::span<const Part> parts) override;
  const std::byte* wait() override;

 private:
  int device_;
  cudaStream_t stream_;
  std::shared_ptr<DeviceWait> wait_;
  std::byte* memory_ = nullptr;
  std::size_t bytes_ = 0;
  cudaEvent_t copied_ = nullptr;
};

}  // namespace paceline::kernels::cuda
