#include <nccl.h>

#include <cstring>
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

/// NCCL lets one thread at a time use a communicator. The lock is held for calls alone, which in a
/// non-blocking communicator return at once.
class NcclLibrary final : public NcclCalls {
 public:
  explicit NcclLibrary(const kernels::NativeStream& stream)
      : device_(stream.device), stream_(static_cast<cudaStream_t>(stream.stream)) {
    check_cuda("cudaSetDevice", cudaSetDevice(device_));
    check_cuda("cudaEventCreate", cudaEventCreateWithFlags(&mark_, cudaEventDisableTiming));
  }
  ~NcclLibrary() override { (void)cudaEventDestroy(mark_); }

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

  void mark() override { check_cuda("cudaEventRecord", cudaEventRecord(mark_, stream_)); }
  // An error of the device is told by what waits for the stream.
  bool passed() override {
    // Or another thread would first make itself at home on GPU 0.
    if (cudaSetDevice(device_) != cudaSuccess) return true;
    return cudaEventQuery(mark_) != cudaErrorNotReady;
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
  cudaEvent_t mark_ = nullptr;
  std::mutex mutex_;
  ncclComm_t comm_ = nullptr;
};

}  // namespace

std::string nccl_missing() { return ""; }

std::unique_ptr<NcclCalls> make_nccl_calls(const kernels::NativeStream& stream) {
  return std::make_unique<NcclLibrary>(stream);
}

}  // namespace paceline::parallel
