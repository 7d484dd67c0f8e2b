#include "kernels/cuda/staging.h"

#include <algorithm>
#include <optional>

#include "kernels/core/error.h"
#include "kernels/cuda/launch.h"

namespace paceline::kernels::cuda {
namespace {

// Errors here are those of earlier calls.
void release(std::byte* host, std::byte* device) {
  if (host != nullptr) (void)cudaFreeHost(host);
  (void)cudaFree(device);
}

/// Where a piece's arrays stand in its bytes.
struct PieceLayout {
  std::size_t scales = 0;
  std::size_t minimums = 0;
  std::size_t bytes = 0;

  PieceLayout(const RowBytes& row, std::int64_t rows) {
    const auto place = [&](std::size_t of_row) {
      constexpr std::size_t kAlignment = 16;
      const std::size_t at = bytes;
      const std::size_t size = static_cast<std::size_t>(rows) * of_row;
      bytes += (size + kAlignment - 1) / kAlignment * kAlignment;
      return at;
    };
    place(row.values);
    scales = place(row.scales);
    minimums = place(row.minimums);
  }
  template <typename Byte>
  RowArrays<Byte> arrays(Byte* piece) const {
    return {piece, piece + scales, piece + minimums};
  }
};

/// Rows of a matrix to where a piece has them. Some are read at a time, so that threads share a
/// piece and what conversion needs on the way is little.
void read_piece(const MatrixSource& matrix, IndexRange rows, const RowSpace& to, ThreadPool& pool) {
  constexpr std::int64_t kTaskBytes = std::int64_t{1} << 20;
  const RowBytes bytes = row_bytes(matrix.format(), matrix.cols());
  const auto row = static_cast<std::int64_t>(bytes.values);
  const std::int64_t at_once =
      std::max<std::int64_t>(1, kTaskBytes / std::max<std::int64_t>(row, 1));
  const std::int64_t tasks = (rows.size() + at_once - 1) / at_once;
  pool.run(static_cast<int>(tasks), [&](int task) {
    const std::int64_t first = rows.begin + task * at_once;
    matrix.read({first, std::min(first + at_once, rows.end)}, to.from(first - rows.begin, bytes));
  });
}

}  // namespace

Staging::~Staging() {
  const DeviceWait::Scope waiting(*wait_);
  for (Slot& slot : slots_) {
    if (slot.copied == nullptr) continue;
    (void)cudaEventSynchronize(slot.copied);
    if (slot.used != nullptr) (void)cudaEventSynchronize(slot.used);
    release(slot.host, slot.device);
    (void)cudaEventDestroy(slot.copied);
    if (slot.used != nullptr) (void)cudaEventDestroy(slot.used);
  }
  if (copies_ != nullptr) (void)cudaStreamDestroy(copies_);
}

ThreadPool& Staging::pool() {
  if (pool_ == nullptr) pool_ = std::make_unique<ThreadPool>(threads_);
  return *pool_;
}

void Staging::send(std::size_t bytes, FunctionRef<void(std::byte*)> fill,
                   FunctionRef<void(const std::byte*)> use, cudaStream_t stream) {
  open();
  Slot& slot = slots_[next_];
  next_ = (next_ + 1) % slots_.size();
  wait_for(slot.copied);
  reserve(slot, bytes);
  fill(slot.host);
  check_call("cudaStreamWaitEvent", cudaStreamWaitEvent(copies_, slot.used, 0));
  check_call("cudaMemcpy to the device",
             cudaMemcpyAsync(slot.device, slot.host, bytes, cudaMemcpyHostToDevice, copies_));
  check_call("cudaEventRecord", cudaEventRecord(slot.copied, copies_));
  check_call("cudaStreamWaitEvent", cudaStreamWaitEvent(stream, slot.copied, 0));
  use(slot.device);
  check_call("cudaEventRecord", cudaEventRecord(slot.used, stream));
}

void Staging::send_rows(const MatrixSource& matrix, std::int64_t multiple, Backend& device,
                        FunctionRef<void(IndexRange, const StoredRows&, cudaStream_t)> use) {
  const std::optional<NativeStream> native = device.native_stream();
  const auto stream = native ? static_cast<cudaStream_t>(native->stream) : nullptr;
  const RowBytes row = row_bytes(matrix.format(), matrix.cols());
  const std::size_t least = std::max<std::size_t>(1, PieceLayout(row, multiple).bytes);
  const std::int64_t at_once =
      std::max<std::int64_t>(1, static_cast<std::int64_t>(piece_bytes_ / least)) * multiple;
  for (std::int64_t first = 0; first < matrix.rows(); first += at_once) {
    const IndexRange rows{first, std::min(first + at_once, matrix.rows())};
    const PieceLayout piece(row, rows.size());
    send(
        piece.bytes, [&](std::byte* host) { read_piece(matrix, rows, piece.arrays(host), pool()); },
        [&](const std::byte* copy) { use(rows, piece.arrays(copy), stream); }, stream);
  }
}

void Staging::open() {
  if (copies_ != nullptr) return;
  for (Slot& slot : slots_) {
    if (slot.copied == nullptr) {
      check_call("cudaEventCreate", cudaEventCreateWithFlags(&slot.copied, cudaEventDisableTiming));
    }
    if (slot.used == nullptr) {
      check_call("cudaEventCreate", cudaEventCreateWithFlags(&slot.used, cudaEventDisableTiming));
    }
  }
  check_call("cudaStreamCreate", cudaStreamCreateWithFlags(&copies_, cudaStreamNonBlocking));
}

void Staging::wait_for(cudaEvent_t event) {
  const DeviceWait::Scope waiting(*wait_);
  check_call("cudaEventSynchronize", cudaEventSynchronize(event));
}

void Staging::reserve(Slot& slot, std::size_t bytes) {
  if (bytes <= slot.bytes) return;
  wait_for(slot.used);
  release(slot.host, slot.device);
  slot.host = nullptr;
  slot.device = nullptr;
  slot.bytes = 0;
  const std::size_t size = std::max(bytes, piece_bytes_);
  void* host = nullptr;
  void* device = nullptr;
  const cudaError_t pinned = cudaMallocHost(&host, size);
  slot.host = static_cast<std::byte*>(host);
  if (pinned == cudaErrorMemoryAllocation) {
    throw ConfigError("--device cuda: no {} bytes of host memory to load weights through", size);
  }
  check_call("cudaMallocHost", pinned);
  const cudaError_t status = cudaMalloc(&device, size);
  slot.device = static_cast<std::byte*>(device);
  if (status == cudaErrorMemoryAllocation) {
    throw ConfigError("--device cuda: {} bytes do not fit into what is left of the GPU's memory",
                      size);
  }
  check_call("cudaMalloc", status);
  slot.bytes = size;
}

}  // namespace paceline::kernels::cuda
