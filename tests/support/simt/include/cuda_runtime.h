#pragma once

// Stands in for CUDA's header of this name, so that kernels build with g++ and run on the CPU: what
// Paceline uses of the language's built-ins and of the runtime, and no more. Stricter than a GPU
// where that finds mistakes: a barrier or warp call that not all threads reach, a shuffle that
// reads a lane outside its mask, a thread that returns before a barrier are errors.
//
// Static shared memory is a static variable here: blocks run one after the other. It starts with
// what the block before left, so that a kernel which forgets to write it fails when it is run in
// several orders.

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <source_location>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "tests/support/simt/device.h"
#include "tests/support/simt/memory.h"
#include "tests/support/simt/stream.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)

using uint3 = paceline::simt::Index3;
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_size = 1, unsigned y_size = 1, unsigned z_size = 1)
      : x(x_size), y(y_size), z(z_size) {}
};

extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;
inline constexpr int warpSize = paceline::simt::kWarpLanes;

// ---- barriers and warps

namespace paceline::simt {

using Where = std::source_location;

/// A lane that would read outside of its group of `width` lanes keeps its own value.
template <typename T>
T shuffle(const char* name, unsigned mask, T value, int source, bool inside, Where where) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(std::uint64_t));
  Block& block = current_block();
  WarpCall call{name, where, mask, 0, inside ? source : block.lane(), false};
  std::memcpy(&call.value, &value, sizeof(T));
  unsigned ballot = 0;
  const std::uint64_t read = block.exchange(call, ballot);
  std::memcpy(&value, &read, sizeof(T));
  return value;
}

inline unsigned vote(const char* name, unsigned mask, bool yes, Where where) {
  Block& block = current_block();
  unsigned ballot = 0;
  block.exchange({name, where, mask, 0, block.lane(), yes}, ballot);
  return ballot;
}

}  // namespace paceline::simt

inline void __syncthreads(paceline::simt::Where where = paceline::simt::Where::current()) {
  paceline::simt::current_block().barrier("__syncthreads", false, where);
}
inline int __syncthreads_or(int yes,
                            paceline::simt::Where where = paceline::simt::Where::current()) {
  return paceline::simt::current_block().barrier("__syncthreads_or", yes != 0, where).count > 0;
}
inline int __syncthreads_and(int yes,
                             paceline::simt::Where where = paceline::simt::Where::current()) {
  const auto votes = paceline::simt::current_block().barrier("__syncthreads_and", yes != 0, where);
  return votes.count == votes.threads;
}
inline int __syncthreads_count(int yes,
                               paceline::simt::Where where = paceline::simt::Where::current()) {
  return paceline::simt::current_block().barrier("__syncthreads_count", yes != 0, where).count;
}
inline void __syncwarp(unsigned mask = ~0u,
                       paceline::simt::Where where = paceline::simt::Where::current()) {
  paceline::simt::vote("__syncwarp", mask, false, where);
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize,
              paceline::simt::Where where = paceline::simt::Where::current()) {
  const int group = paceline::simt::current_block().lane() & -width;
  return paceline::simt::shuffle("__shfl_sync", mask, value, group + (source & (width - 1)), true,
                                 where);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                 paceline::simt::Where where = paceline::simt::Where::current()) {
  const int lane = paceline::simt::current_block().lane();
  const int source = lane - static_cast<int>(delta);
  return paceline::simt::shuffle("__shfl_up_sync", mask, value, source, source >= (lane & -width),
                                 where);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                   paceline::simt::Where where = paceline::simt::Where::current()) {
  const int lane = paceline::simt::current_block().lane();
  const int source = lane + static_cast<int>(delta);
  return paceline::simt::shuffle("__shfl_down_sync", mask, value, source,
                                 source < (lane & -width) + width, where);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = warpSize,
                  paceline::simt::Where where = paceline::simt::Where::current()) {
  const int lane = paceline::simt::current_block().lane();
  const int source = lane ^ lane_mask;
  return paceline::simt::shuffle("__shfl_xor_sync", mask, value, source,
                                 source < (lane & -width) + width, where);
}

inline unsigned __ballot_sync(unsigned mask, int yes,
                              paceline::simt::Where where = paceline::simt::Where::current()) {
  return paceline::simt::vote("__ballot_sync", mask, yes != 0, where);
}
inline int __any_sync(unsigned mask, int yes,
                      paceline::simt::Where where = paceline::simt::Where::current()) {
  return paceline::simt::vote("__any_sync", mask, yes != 0, where) != 0;
}
inline int __all_sync(unsigned mask, int yes,
                      paceline::simt::Where where = paceline::simt::Where::current()) {
  return paceline::simt::vote("__all_sync", mask, yes != 0, where) == mask;
}

// ---- atomics: each returns the old value

template <typename T>
concept SimtAtomic =
    std::same_as<T, int> || std::same_as<T, unsigned> || std::same_as<T, unsigned long long>;

namespace paceline::simt {

/// Other threads may come in before, never between reading and writing.
template <typename T, typename Change>
T change_atomically(T* at, const Change& change) {
  current_block().maybe_yield();
  return std::exchange(*at, change(*at));
}

}  // namespace paceline::simt

template <SimtAtomic T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  return paceline::simt::change_atomically(at, [&](T old) { return old + value; });
}
template <SimtAtomic T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  return paceline::simt::change_atomically(at, [&](T old) { return old > value ? old : value; });
}
template <SimtAtomic T>
T atomicMin(T* at, std::type_identity_t<T> value) {
  return paceline::simt::change_atomically(at, [&](T old) { return old < value ? old : value; });
}
template <SimtAtomic T>
T atomicExch(T* at, std::type_identity_t<T> value) {
  return paceline::simt::change_atomically(at, [&](T) { return value; });
}
template <SimtAtomic T>
T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return paceline::simt::change_atomically(at,
                                           [&](T old) { return old == expected ? value : old; });
}

/// Blocks run one after the other, so each sees all that was written before.
inline void __threadfence() {}

// ---- arithmetic

inline int __popc(unsigned bits) { return std::popcount(bits); }

[[noreturn]] inline void __trap(paceline::simt::Where where = paceline::simt::Where::current()) {
  paceline::simt::current_block().fail("__trap", where);
}

/// What `extern __shared__` names in CUDA.
inline std::byte* simt_dynamic_shared() { return paceline::simt::current_block().dynamic_shared(); }

// ---- the runtime

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidDevice = 101,
  cudaErrorNotReady = 600,
  cudaErrorStreamCaptureUnsupported = 900
};
inline const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
    default:
      return "cudaErrorInvalidDevice";
  }
}
inline const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    default:
      return "invalid device ordinal";
  }
}

/// There is one device.
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
/// As kernels compiled for sm_90 are.
inline constexpr int kSimtMajor = 9;
struct cudaFuncAttributes {
  int ptxVersion = 10 * kSimtMajor;
};
template <typename Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel*) {
  *attributes = {};
  return cudaSuccess;
}
struct cudaUUID_t {
  char bytes[16];
};
struct cudaDeviceProp {
  char name[256] = "emulated";
  cudaUUID_t uuid = {};
  int major = kSimtMajor;
  int minor = 0;
  int multiProcessorCount = 1;
};
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  *properties = {};
  return cudaSetDevice(device);
}

/// When a stream does its work: tests/support/simt/stream.h.
using cudaStream_t = SimtStream*;
inline constexpr unsigned cudaStreamNonBlocking = 1;
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new SimtStream;
  return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  paceline::simt::finish(*stream);
  delete stream;
  return cudaSuccess;
}
inline bool simt_records(cudaStream_t stream) {
  return stream != nullptr && stream->recorded != nullptr;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (simt_records(stream)) return cudaErrorStreamCaptureUnsupported;
  ++paceline::simt::host_waits();
  if (stream != nullptr) paceline::simt::finish(*stream);
  return cudaSuccess;
}

using cudaEvent_t = SimtEvent*;
inline constexpr unsigned cudaEventDisableTiming = 2;
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new SimtEvent;
  return cudaSuccess;
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  ++paceline::simt::host_waits();
  paceline::simt::reach(*event);
  return cudaSuccess;
}
/// Does no work, so that nothing is done sooner for having been asked after.
inline cudaError_t cudaEventQuery(cudaEvent_t event) {
  return event->reached == event->recorded ? cudaSuccess : cudaErrorNotReady;
}
inline cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return stream == nullptr || stream->waiting.empty() ? cudaSuccess : cudaErrorNotReady;
}
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
  paceline::simt::reach(*event);
  delete event;
  return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (simt_records(stream)) return cudaErrorStreamCaptureUnsupported;
  paceline::simt::record(*event, stream);
  return cudaSuccess;
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned = 0) {
  if (simt_records(stream)) return cudaErrorStreamCaptureUnsupported;
  paceline::simt::wait_for(stream, *event);
  return cudaSuccess;
}

/// A graph is its kernels one after the other. Only kernels can be recorded.
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
using cudaGraph_t = SimtGraph*;
using cudaGraphExec_t = SimtGraph*;
inline cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream == nullptr || simt_records(stream)) return cudaErrorStreamCaptureUnsupported;
  stream->recorded = std::make_unique<SimtGraph>();
  return cudaSuccess;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = stream->recorded.release();
  return *graph == nullptr ? cudaErrorInvalidValue : cudaSuccess;
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned) {
  *exec = new SimtGraph{graph->kernels};
  return cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
/// CUDA does not say what happens where that is under way: here the program ends.
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  if (*exec->launched > 0)
    throw paceline::simt::Error("a graph is destroyed while it is under way");
  return cudaGraphDestroy(exec);
}
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  ++*exec->launched;
  for (const auto& kernel : exec->kernels) paceline::simt::put(stream, kernel);
  paceline::simt::put(stream, [launched = exec->launched] { --*launched; });
  return cudaSuccess;
}

inline cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  *memory = paceline::simt::allocate(bytes);
  return *memory == nullptr && bytes > 0 ? cudaErrorMemoryAllocation : cudaSuccess;
}
/// Waits for the device, as CUDA's does.
inline cudaError_t cudaFree(void* memory) {
  paceline::simt::finish_streams();
  paceline::simt::free(memory);
  return cudaSuccess;
}
inline cudaError_t cudaMallocHost(void** memory, std::size_t bytes) {
  *memory = paceline::simt::allocate_pinned(bytes);
  return cudaSuccess;
}
inline cudaError_t cudaFreeHost(void* memory) {
  paceline::simt::finish_streams();
  paceline::simt::free_pinned(memory);
  return cudaSuccess;
}
inline cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *free = paceline::simt::free_memory();
  *total = paceline::simt::total_memory();
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes,
                                   cudaStream_t stream) {
  if (simt_records(stream)) return cudaErrorStreamCaptureUnsupported;
  paceline::simt::put(stream, [=] {
    const paceline::simt::HostAccess access;
    std::memset(memory, value, bytes);
  });
  return cudaSuccess;
}
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
/// From and to pinned memory late. From other host memory what stands there now; to such, done on
/// return.
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes,
                                   cudaMemcpyKind kind, cudaStream_t stream) {
  if (simt_records(stream)) return cudaErrorStreamCaptureUnsupported;
  const auto copy = [=](const void* source) {
    const paceline::simt::HostAccess access;
    std::memmove(to, source, bytes);
  };
  if (paceline::simt::is_pinned(kind == cudaMemcpyDeviceToHost ? to : from)) {
    paceline::simt::put_late(stream, [=] { copy(from); });
  } else if (kind == cudaMemcpyHostToDevice && stream != nullptr && !stream->waiting.empty()) {
    const auto* bytes_now = static_cast<const std::byte*>(from);
    paceline::simt::put(
        stream, [copy, now = std::vector(bytes_now, bytes_now + bytes)] { copy(now.data()); });
  } else {
    paceline::simt::put(stream, [=] { copy(from); });
    if (kind == cudaMemcpyDeviceToHost) ++paceline::simt::host_waits();
    if (kind == cudaMemcpyDeviceToHost && stream != nullptr) paceline::simt::finish(*stream);
  }
  return cudaSuccess;
}

enum cudaLaunchAttributeID { cudaLaunchAttributeProgrammaticStreamSerialization = 6 };
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    int programmaticStreamSerializationAllowed = 0;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;  // at most the one: then every thread must call simt_await_stream
};

/// What griddepcontrol.wait is on a GPU. Here kernels run one after the other.
inline void simt_await_stream() { paceline::simt::current_block().await_stream(); }

/// What every GPU from sm_80 on takes without being asked for more.
inline bool simt_can_launch(const cudaLaunchConfig_t& config) {
  const dim3& grid = config.gridDim;
  const dim3& block = config.blockDim;
  const bool some =
      grid.x > 0 && grid.y > 0 && grid.z > 0 && block.x > 0 && block.y > 0 && block.z > 0;
  return some && grid.x <= 0x7fffffffu && grid.y <= 65535 && grid.z <= 65535 &&
         std::uint64_t{block.x} * block.y * block.z <= 1024 && config.dynamicSmemBytes <= 48 * 1024;
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  if (!simt_can_launch(*config)) return cudaErrorInvalidConfiguration;
  cudaStream_t stream = config->stream;
  const bool waits = stream != nullptr && !stream->waiting.empty();
  if (simt_records(stream) || waits) {
    cudaLaunchConfig_t later = *config;
    later.stream = nullptr;
    // The parameters as they are now, which is what a GPU records.
    std::function<void()> run = [later, kernel,
                                 parameters = std::tuple<std::remove_cv_t<Parameters>...>(
                                     static_cast<Parameters>(arguments)...)] {
      std::apply([&](const auto&... each) { cudaLaunchKernelEx(&later, kernel, each...); },
                 parameters);
    };
    if (simt_records(stream)) {
      stream->recorded->kernels.push_back(std::move(run));
    } else {
      paceline::simt::put(stream, std::move(run));
    }
    return cudaSuccess;
  }
  const dim3& grid = config->gridDim;
  const dim3& block = config->blockDim;
  paceline::simt::run_grid({grid.x, grid.y, grid.z}, {block.x, block.y, block.z},
                           config->dynamicSmemBytes, [&] {
                             kernel(static_cast<Parameters>(arguments)...);
                             if (config->numAttrs > 0)
                               paceline::simt::current_block().check_awaited();
                           });
  return cudaSuccess;
}
