#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "kernels/api.h"

namespace paceline::parallel {

/// One transfer or sum between the ranks of a communicator, of `count` floats in the devices'
/// memory.
struct NcclOperation {
  enum class Kind { kAllGather, kBroadcast, kSend, kReceive, kAllReduce };
  Kind kind = Kind::kAllGather;
  const float* from = nullptr;  // not for kReceive
  float* to = nullptr;          // not for kSend
  std::size_t count = 0;        // kAllGather: of each rank
  int peer = 0;                 // kBroadcast: the root; kSend, kReceive: the other rank
};

/// What Paceline calls of NCCL, for one rank of one communicator, so that tests can put something
/// else in its place. Calls return at once: what they began may go on, and `status` says how it
/// stands; until it is kReady, nothing else may be begun. One thread calls; another may call what
/// says so. Errors are FatalErrors. The destructor calls nothing of NCCL: what has been neither
/// destroyed nor aborted is left to the end of the process.
class NcclCalls {
 public:
  using UniqueId = std::array<std::byte, 128>;
  enum class Status { kReady, kInProgress, kFailed };

  virtual ~NcclCalls() = default;
  NcclCalls() = default;
  NcclCalls(const NcclCalls&) = delete;
  NcclCalls& operator=(const NcclCalls&) = delete;

  virtual UniqueId make_unique_id() = 0;
  virtual void begin_init(const UniqueId& id, int size, int rank) = 0;
  /// Any thread; never waits.
  virtual Status status() = 0;
  /// Why the status is kFailed. Any thread.
  virtual std::string error() = 0;
  /// Puts the operations on the stream as one group. While the stream is recorded they become part
  /// of the recording: on all ranks or on none, and likewise whenever that is repeated.
  virtual void enqueue(std::span<const NcclOperation> group) = 0;

  /// Memory of the device that can be registered; null where there is none.
  virtual void* allocate(std::size_t bytes) = 0;
  /// Makes such memory known to all ranks, which do the same with as many bytes. NCCL may also
  /// decide not to take it: `registered` says, when the status is kReady.
  virtual void begin_register(void* memory, std::size_t bytes) = 0;
  virtual bool registered(void* memory) = 0;
  /// Takes back what was registered; waits for what is on the stream. Before `free`.
  virtual void begin_deregister(void* memory) = 0;
  /// Waits for what is on the stream.
  virtual void free(void* memory) = 0;

  virtual void begin_finalize() = 0;
  virtual void destroy() = 0;
  /// Ends what is on the stream, wherever it is. Any thread; may wait for the one that calls.
  virtual void abort() = 0;
};

/// Why there is no NCCL here; empty if there is.
std::string nccl_missing();

/// NCCL itself, on this stream. Throws ConfigError where it was not built.
std::unique_ptr<NcclCalls> make_nccl_calls(const kernels::NativeStream& stream);

}  // namespace paceline::parallel
