#include <nccl.h>

#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "kernels/core/error.h"
#include "parallel/nccl/calls.h"

namespace paceline::parallel {
namespace {

void check_cuda(const char* call, cudaError_t status) {
  check(status == cudaSuccess, "{}: {} ({})", call, cudaGetErrorString(status),
        cudaGetErrorName(status));
}

// Windows are what symmetric memory and NVLS take; before them only NVLS took registered buffers.
#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 27, 0)
using Registration = ncclWindow_t;
ncclResult_t register_memory(ncclComm_t comm, void* memory, std::size_t bytes, Registration* to) {
  return ncclCommWindowRegister(comm, memory, bytes, to, NCCL_WIN_COLL_SYMMETRIC);
}
ncclResult_t deregister_memory(ncclComm_t comm, Registration registration) {
  return ncclCommWindowDeregister(comm, registration);
}
#else
using Registration = void*;
ncclResult_t register_memory(ncclComm_t comm, void* memory, std::size_t bytes, Registration* to) {
  return ncclCommRegister(comm, memory, bytes, to);
}
ncclResult_t deregister_memory(ncclComm_t comm, Registration registration) {
  return ncclCommDeregister(comm, registration);
}
#endif

/// NCCL lets one thread at a time use a communicator. The lock is held for calls alone, which in a
/// non-blocking communicator return at once.
class NcclLibrary final : public NcclCalls {
 public:
  explicit NcclLibrary(const kernels::NativeStream& stream)
      : device_(stream.device), stream_(static_cast<cudaStream_t>(stream.stream)) {
    check_cuda("cudaSetDevice", cudaSetDevice(device_));
  }

  UniqueId make_unique_id() override {
    ncclUniqueId id;
    check_nccl("ncclGetUniqueId", ncclGetUniqueId(&id));
    UniqueId bytes;
    static_assert(sizeof(id) == sizeof(bytes));
    std::memcpy(bytes.data(), &id, sizeof(id));
    return bytes;
  }

  void begin_init(const UniqueId& bytes, int size, int rank) override {
    const std::lock_guard lock(mutex_);
    ncclUniqueId id;
    std::memcpy(&id, bytes.data(), sizeof(id));
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    check_cuda("cudaSetDevice", cudaSetDevice(device_));
    check_nccl("ncclCommInitRankConfig", ncclCommInitRankConfig(&comm_, size, id, rank, &config));
  }

  Status status() override {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock) return Status::kInProgress;
    if (comm_ == nullptr) return Status::kFailed;
    ncclResult_t result = ncclSuccess;
    if (ncclCommGetAsyncError(comm_, &result) != ncclSuccess) return Status::kFailed;
    if (result == ncclInProgress) return Status::kInProgress;
    return result == ncclSuccess ? Status::kReady : Status::kFailed;
  }

  std::string error() override {
    const std::lock_guard lock(mutex_);
    if (comm_ == nullptr) return "NCCL: the communicator is no more";
    ncclResult_t result = ncclSuccess;
    const ncclResult_t asked = ncclCommGetAsyncError(comm_, &result);
    return text_of("NCCL", asked != ncclSuccess ? asked : result);
  }

  void enqueue(std::span<const NcclOperation> group) override {
    const std::lock_guard lock(mutex_);
    check(comm_ != nullptr, "NCCL: the communicator is no more");
    check_cuda("cudaSetDevice", cudaSetDevice(device_));
    check_nccl("ncclGroupStart", ncclGroupStart());
    for (const NcclOperation& operation : group) add(operation);
    check_nccl("ncclGroupEnd", ncclGroupEnd());
  }

  void* allocate(std::size_t bytes) override {
    check_cuda("cudaSetDevice", cudaSetDevice(device_));
    void* memory = nullptr;
    return ncclMemAlloc(&memory, bytes) == ncclSuccess ? memory : nullptr;
  }

  void begin_register(void* memory, std::size_t bytes) override {
    const std::lock_guard lock(mutex_);
    // NCCL may write it later, but before it is ready.
    Registration* const registration = &registrations_[memory];
    check_nccl("ncclCommWindowRegister", register_memory(comm_, memory, bytes, registration));
  }

  bool registered(void* memory) override { return registrations_[memory] != Registration{}; }

  void begin_deregister(void* memory) override {
    wait_for_stream();
    const std::lock_guard lock(mutex_);
    check_nccl("ncclCommWindowDeregister", deregister_memory(comm_, registrations_[memory]));
    registrations_[memory] = {};
  }

  void free(void* memory) override {
    wait_for_stream();
    check_nccl("ncclMemFree", ncclMemFree(memory));
    registrations_.erase(memory);
  }

  void begin_finalize() override {
    const std::lock_guard lock(mutex_);
    check_nccl("ncclCommFinalize", ncclCommFinalize(comm_));
  }

  void destroy() override {
    const std::lock_guard lock(mutex_);
    check_nccl("ncclCommDestroy", ncclCommDestroy(std::exchange(comm_, nullptr)));
  }

  void abort() override {
    const std::lock_guard lock(mutex_);
    (void)cudaSetDevice(device_);
    if (comm_ != nullptr) (void)ncclCommAbort(std::exchange(comm_, nullptr));
  }

 private:
  using Kind = NcclOperation::Kind;

  void add(const NcclOperation& o) {
    switch (o.kind) {
      case Kind::kAllGather:
        return check_nccl("ncclAllGather",
                          ncclAllGather(o.from, o.to, o.count, ncclFloat, comm_, stream_));
      case Kind::kBroadcast:
        return check_nccl("ncclBroadcast",
                          ncclBroadcast(o.from, o.to, o.count, ncclFloat, o.peer, comm_, stream_));
      case Kind::kSend:
        return check_nccl("ncclSend", ncclSend(o.from, o.count, ncclFloat, o.peer, comm_, stream_));
      case Kind::kReceive:
        return check_nccl("ncclRecv", ncclRecv(o.to, o.count, ncclFloat, o.peer, comm_, stream_));
      case Kind::kAllReduce:
        return check_nccl("ncclAllReduce",
                          ncclAllReduce(o.from, o.to, o.count, ncclFloat, ncclSum, comm_, stream_));
    }
  }

  // ncclMemFree does not, as cudaFree would.
  void wait_for_stream() {
    check_cuda("cudaSetDevice", cudaSetDevice(device_));
    check_cuda("cudaStreamSynchronize", cudaStreamSynchronize(stream_));
  }

  /// NCCL's own words about the last error say more than the code's, and where they are from.
  std::string text_of(const char* call, ncclResult_t result) const {
    const char* const details = ncclGetLastError(comm_);
    const bool more = details != nullptr && *details != '\0';
    return fmt::format("{}: {}{}{}", call, ncclGetErrorString(result), more ? ": " : "",
                       more ? details : "");
  }

  void check_nccl(const char* call, ncclResult_t result) const {
    if (result == ncclSuccess || result == ncclInProgress) return;
    throw FatalError("{}", text_of(call, result));
  }

  int device_;
  cudaStream_t stream_;
  std::mutex mutex_;
  ncclComm_t comm_ = nullptr;
  std::map<void*, Registration> registrations_;  // of what `allocate` gave
};

}  // namespace

std::string nccl_missing() { return ""; }

std::unique_ptr<NcclCalls> make_nccl_calls(const kernels::NativeStream& stream) {
  return std::make_unique<NcclLibrary>(stream);
}

}  // namespace paceline::parallel
