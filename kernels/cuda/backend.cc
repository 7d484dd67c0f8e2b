#include "kernels/cuda/backend.h"

#include <cuda_runtime.h>
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/cuda/device_matrix.h"
#include "kernels/cuda/graphs.h"
#include "kernels/cuda/host_copies.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/library_products.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/row_major.h"

namespace paceline::kernels {
namespace {

constexpr int kLeastGeneration = 80;  // sm_80

using cuda::check_call;

// Freeing waits for what the device still does with the memory. An error here is one of an earlier
// call's, which has been or will be told by that stream.
void release(void* memory) { (void)cudaFree(memory); }

/// As nvidia-smi writes it: "GPU-6f2c0d1e-...".
std::string device_id(const cudaDeviceProp& properties) {
  std::string id = "GPU";
  for (int i = 0; i < 16; ++i) {
    if (i == 0 || i == 4 || i == 6 || i == 8 || i == 10) id += '-';
    id += fmt::format("{:02x}", static_cast<unsigned char>(properties.uuid.bytes[i]));
  }
  return id;
}

/// The stream, for as long as a call that takes it lasts.
struct StreamInUse {
  DeviceWait::Scope waiting;
  cudaStream_t stream;
  operator cudaStream_t() const { return stream; }
};

/// One device, one stream: ops run in the order they are called.
class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const CudaOptions& options)
      : device_(options.device),
        use_graphs_(options.graphs),
        staging_(options.threads, cuda::Staging::kPieceBytes, wait_) {
    const CudaDevices devices = find_cuda_devices();
    if (devices.count == 0) throw ConfigError("--device cuda: {}", devices.why_none);
    if (device_ < 0 || device_ >= devices.count) {
      throw ConfigError("--device cuda: there is no GPU {}, expected one below {}", device_,
                        devices.count);
    }
    check_call("cudaSetDevice", cudaSetDevice(device_));
    cudaDeviceProp properties;
    check_call("cudaGetDeviceProperties", cudaGetDeviceProperties(&properties, device_));
    const int generation = properties.major * 10 + properties.minor;
    description_ = fmt::format("{} (sm_{})", properties.name, generation);
    device_id_ = device_id(properties);
    if (generation < kLeastGeneration) {
      throw ConfigError("--device cuda: GPU {} is a {}, expected sm_{} or later", device_,
                        description_, kLeastGeneration);
    }
    check_call("cudaStreamCreate", cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    if (!options.fast) return;
    products_ = std::make_unique<cuda::LibraryProducts>(cuda::make_cublaslt_calls(), *this);
    // What the library promises its bits for: its version, the generation, the multiprocessors.
    numerics_ += fmt::format(",linear={}/sm_{}x{}", products_->name(), generation,
                             properties.multiProcessorCount);
  }

  ~CudaBackend() override {
    const DeviceWait::Scope waiting(*wait_);
    (void)cudaStreamSynchronize(stream_);
    workspaces_.clear();
    products_.reset();
    (void)cudaStreamDestroy(stream_);
  }
  CudaBackend(const CudaBackend&) = delete;
  CudaBackend& operator=(const CudaBackend&) = delete;

  std::string_view numerics() const override { return numerics_; }
  std::string description() const override { return description_; }
  std::optional<NativeStream> native_stream() const override {
    return NativeStream{stream_, device_, device_id_, wait_};
  }
  bool shares_host_memory() const override { return false; }

  std::optional<std::uint64_t> free_memory() const override {
    std::size_t free = 0, total = 0;
    check_call("cudaSetDevice", cudaSetDevice(device_));
    check_call("cudaMemGetInfo", cudaMemGetInfo(&free, &total));
    return free;
  }
  // Memory that grows is allocated anew: what graphs know of the old is no longer true.
  Buffer allocate(std::size_t bytes) override {
    if (bytes == 0) return {};
    forget_repeats();
    return take(bytes);
  }

  void upload(void* device, const void* host, std::size_t bytes) override {
    if (bytes > 0) uploads_.copy(device, host, bytes, stream());
  }
  void download(void* host, const void* device, std::size_t bytes) override {
    if (bytes == 0) return;
    check_call("cudaMemcpy to the host",
               cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream()));
    synchronize();
  }
  // Where what a kernel did wrong comes out.
  void synchronize() override { check_call("the device", cudaStreamSynchronize(stream())); }
  std::unique_ptr<Readback> make_readback() override {
    return std::make_unique<cuda::PinnedReadback>(device_, stream_, wait_);
  }

  void repeat(std::span<const std::int64_t> key, FunctionRef<void()> ops) override {
    if (!use_graphs_) return ops();
    graphs_.run(key, ops, stream());
  }
  // Nothing but graphs used the workspaces before the last.
  void forget_repeats() override {
    graphs_.forget(stream());
    ++forgotten_;
    if (workspaces_.size() > 1) workspaces_.erase(workspaces_.begin(), workspaces_.end() - 1);
  }
  RepeatCounts repeat_counts() const override {
    return {graphs_.recorded(), graphs_.repeated(), forgotten_};
  }

  std::unique_ptr<PackedMatrix> pack(const MatrixSource& matrix,
                                     const Reduction& reduction) override {
    check_call("cudaSetDevice", cudaSetDevice(device_));
    if (products_ != nullptr && cuda::RowMajorMatrix::holds(matrix.format())) {
      return std::make_unique<cuda::RowMajorMatrix>(matrix, reduction, *this, staging_);
    }
    return std::make_unique<cuda::DeviceMatrix>(matrix, reduction, *this, staging_);
  }

  void linear(const LinearParams& params) override {
    if (const auto* matrix = dynamic_cast<const cuda::RowMajorMatrix*>(params.weight)) {
      return multiply_by_library(params, *matrix);
    }
    const std::size_t bytes = cuda::linear_workspace_bytes(*params.weight, params.rows);
    cuda::linear(params, {workspace<std::byte>(static_cast<std::int64_t>(bytes)), bytes}, stream());
  }
  void embed(const EmbedParams& params) override {
    if (const auto* table = dynamic_cast<const cuda::RowMajorMatrix*>(params.table)) {
      return cuda::embed(params, *table, stream());
    }
    cuda::embed(params, stream());
  }
  void sum_partials(const SumPartialsParams& params) override {
    cuda::sum_partials(params, stream());
  }
  void rms_norm(const RmsNormParams& params) override { cuda::rms_norm(params, stream()); }
  void rope_table(const RopeTableParams& params) override { cuda::rope_table(params, stream()); }
  void rope_append(const RopeAppendParams& params) override { cuda::rope_append(params, stream()); }
  void attention(const AttentionParams& params) override {
    const std::int64_t states = cuda::attention_workspace(params);
    cuda::attention(params, states > 0 ? workspace<float>(states) : nullptr, stream());
  }
  void gather_rows(const GatherRowsParams& params) override { cuda::gather_rows(params, stream()); }
  void join_rows(const JoinRowsParams& params) override { cuda::join_rows(params, stream()); }
  void place_columns(const PlaceColumnsParams& params) override {
    cuda::place_columns(params, stream());
  }
  void activate(const ActivateParams& params) override { cuda::activate(params, stream()); }
  void top_log_probs(const TopLogProbsParams& params) override {
    cuda::top_log_probs(params, stream());
  }
  void place_beams(const PlaceBeamsParams& params) override { cuda::place_beams(params, stream()); }
  void extend_beams(const ExtendBeamsParams& params) override {
    cuda::extend_beams(params, stream());
  }
  void merge_beams(const MergeBeamsParams& params) override { cuda::merge_beams(params, stream()); }
  void resume_sequences(const ResumeSequencesParams& params) override {
    cuda::resume_sequences(params, stream());
  }
  void place_trees(const PlaceTreesParams& params) override { cuda::place_trees(params, stream()); }
  void accept_paths(const AcceptPathsParams& params) override {
    cuda::accept_paths(params, stream());
  }
  void compact_kv(const CompactKvParams& params) override { cuda::compact_kv(params, stream()); }
  void select_tokens(const SelectTokensParams& params) override {
    cuda::select_tokens(params, stream());
  }
  void largest_logits(const LargestLogitsParams& params) override {
    cuda::largest_logits(params, stream());
  }
  void merge_largest(const MergeLargestParams& params) override {
    cuda::merge_largest(params, stream());
  }
  void token_log_probs(const TokenLogProbsParams& params) override {
    cuda::token_log_probs(params, stream());
  }
  void sum_words(const SumWordsParams& params) override { cuda::sum_words(params, stream()); }

 private:
  /// For the calling thread, which may not be the one that made the backend. What is called with it
  /// may wait for the device.
  StreamInUse stream() {
    check_call("cudaSetDevice", cudaSetDevice(device_));
    return {DeviceWait::Scope(*wait_), stream_};
  }

  Buffer take(std::size_t bytes) {
    check(!graphs_.recording(), "memory is allocated while a graph is recorded");
    const StreamInUse on = stream();
    void* memory = nullptr;
    const cudaError_t status = cudaMalloc(&memory, bytes);
    if (status == cudaErrorMemoryAllocation) {
      throw ConfigError("--device cuda: {} bytes do not fit into what is left of GPU {}'s memory",
                        bytes, device_);
    }
    check_call("cudaMalloc", status);
    Buffer buffer(memory, bytes, [wait = wait_](void* freed) {
      const DeviceWait::Scope waiting(*wait);
      release(freed);
    });
    check_call("cudaMemset", cudaMemsetAsync(memory, 0, bytes, on));
    return buffer;
  }

  void multiply_by_library(const LinearParams& params, const cuda::RowMajorMatrix& matrix) {
    check(products_ != nullptr, "linear: the matrix was packed by another backend");
    auto* const rounded =
        workspace<std::uint16_t>(cuda::LibraryProducts::rounded_count(matrix, params.rows));
    products_->linear(params, matrix, rounded, graphs_.recording(), stream());
  }

  /// Memory that one op uses and the next may overwrite. Graphs go on with the one that they were
  /// recorded with; as each is at least twice the one before, all together are less than twice the
  /// last.
  template <typename T>
  T* workspace(std::int64_t count) {
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
    const std::size_t had = workspaces_.empty() ? 0 : workspaces_.back().bytes();
    if (bytes > had) workspaces_.push_back(take(std::max(bytes, 2 * had)));
    return workspaces_.empty() ? nullptr : workspaces_.back().as<T>();
  }

  int device_;
  bool use_graphs_;
  std::string numerics_ = "cuda";
  std::string description_;
  std::string device_id_;
  cudaStream_t stream_ = nullptr;
  std::shared_ptr<DeviceWait> wait_ = std::make_shared<DeviceWait>();
  std::vector<Buffer> workspaces_;  // the last is used, the others by graphs alone
  cuda::GraphCache graphs_;
  std::int64_t forgotten_ = 0;
  cuda::Staging staging_;
  cuda::UploadRing uploads_;
  std::unique_ptr<cuda::LibraryProducts> products_;  // CudaOptions::fast
};

}  // namespace

CudaDevices find_cuda_devices() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    return {0, fmt::format("no GPU can be used: {}", cudaGetErrorString(status))};
  }
  return {count, count > 0 ? "" : "there is no GPU"};
}

std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options) {
  return std::make_unique<CudaBackend>(options);
}

}  // namespace paceline::kernels
