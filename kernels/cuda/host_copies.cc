#include "kernels/cuda/host_copies.h"

#include <algorithm>
#include <cstring>

#include "kernels/cuda/launch.h"

namespace paceline::kernels::cuda {
namespace {

cudaEvent_t make_event() {
  cudaEvent_t event = nullptr;
  check_call("cudaEventCreate", cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return event;
}

}  // namespace

// Errors here are those of earlier calls.
UploadRing::~UploadRing() {
  for (const Half& half : halves_) {
    if (half.memory != nullptr) (void)cudaFreeHost(half.memory);
    if (half.copied != nullptr) (void)cudaEventDestroy(half.copied);
  }
}

void UploadRing::open() {
  for (Half& half : halves_) {
    void* memory = nullptr;
    check_call("cudaMallocHost", cudaMallocHost(&memory, kHalfBytes));
    half.memory = static_cast<std::byte*>(memory);
    half.copied = make_event();
  }
}

void UploadRing::copy(void* device, const void* host, std::size_t bytes, cudaStream_t stream) {
  constexpr std::size_t kAlignment = 64;
  if (bytes > kHalfBytes) {
    check_call("cudaMemcpy to the device",
               cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream));
    return;
  }
  if (halves_[0].memory == nullptr) open();
  if (used_ + bytes > kHalfBytes) {
    check_call("cudaEventRecord", cudaEventRecord(halves_[current_].copied, stream));
    current_ = 1 - current_;
    used_ = 0;
    check_call("the device", cudaEventSynchronize(halves_[current_].copied));
  }
  std::byte* const place = halves_[current_].memory + used_;
  used_ = std::min(kHalfBytes, (used_ + bytes + kAlignment - 1) / kAlignment * kAlignment);
  std::memcpy(place, host, bytes);
  check_call("cudaMemcpy to the device",
             cudaMemcpyAsync(device, place, bytes, cudaMemcpyHostToDevice, stream));
}

PinnedReadback::~PinnedReadback() {
  if (copied_ == nullptr) return;
  const DeviceWait::Scope waiting(*wait_);
  (void)cudaEventSynchronize(copied_);
  (void)cudaEventDestroy(copied_);
  if (memory_ != nullptr) (void)cudaFreeHost(memory_);
}

void PinnedReadback::start(std::span<const Part> parts) {
  const DeviceWait::Scope waiting(*wait_);
  check_call("cudaSetDevice", cudaSetDevice(device_));
  if (copied_ == nullptr) copied_ = make_event();
  std::size_t bytes = 0;
  for (const Part& part : parts) bytes += part.bytes;
  if (bytes > bytes_) {
    check_call("the device", cudaEventSynchronize(copied_));
    if (memory_ != nullptr) (void)cudaFreeHost(memory_);
    memory_ = nullptr;
    void* memory = nullptr;
    bytes_ = std::max(bytes, 2 * bytes_);
    check_call("cudaMallocHost", cudaMallocHost(&memory, bytes_));
    memory_ = static_cast<std::byte*>(memory);
  }
  std::byte* to = memory_;
  for (const Part& part : parts) {
    if (part.bytes == 0) continue;
    check_call("cudaMemcpy to the host",
               cudaMemcpyAsync(to, part.device, part.bytes, cudaMemcpyDeviceToHost, stream_));
    to += part.bytes;
  }
  check_call("cudaEventRecord", cudaEventRecord(copied_, stream_));
}

// Where what a kernel did wrong comes out.
const std::byte* PinnedReadback::wait() {
  const DeviceWait::Scope waiting(*wait_);
  check_call("cudaSetDevice", cudaSetDevice(device_));
  check_call("the device", cudaEventSynchronize(copied_));
  return memory_;
}

}  // namespace paceline::kernels::cuda
