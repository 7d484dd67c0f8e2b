#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstddef>
#include <memory>
#include <utility>

#include "kernels/api.h"
#include "kernels/core/function_ref.h"
#include "kernels/core/matrix_source.h"
#include "kernels/core/thread_pool.h"

namespace paceline::kernels::cuda {

/// The way of weights to the device: in pieces, through two buffers on either side. While the host
/// writes one piece the one before is copied, and the device works on that before it.
class Staging {
 public:
  static constexpr std::size_t kPieceBytes = std::size_t{16} << 20;

  /// Pieces are meant to be of `piece_bytes`; a larger one makes the buffers grow. Nothing is
  /// allocated before the first. `wait` is told when the host waits for the device.
  explicit Staging(int threads, std::size_t piece_bytes = kPieceBytes,
                   std::shared_ptr<DeviceWait> wait = std::make_shared<DeviceWait>())
      : threads_(threads), piece_bytes_(piece_bytes), wait_(std::move(wait)) {}
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  /// Sends all rows of a matrix, in pieces of a multiple of `multiple` rows but for the last one:
  /// threads share the reading, and `use` puts kernels on the stream, which is `device`'s, that
  /// read a piece's copy.
  void send_rows(const MatrixSource& matrix, std::int64_t multiple, Backend& device,
                 FunctionRef<void(IndexRange rows, const StoredRows& copy, cudaStream_t)> use);

  /// `fill` writes a piece to host memory; `use` puts kernels on the stream that read its copy,
  /// which is there until they are done. Both are called at once. Host and device memory are
  /// 256-byte aligned.
  void send(std::size_t bytes, FunctionRef<void(std::byte*)> fill,
            FunctionRef<void(const std::byte*)> use, cudaStream_t stream);

 private:
  struct Slot {
    std::byte* host = nullptr;
    std::byte* device = nullptr;
    std::size_t bytes = 0;
    cudaEvent_t copied = nullptr;  // `host` may be written
    cudaEvent_t used = nullptr;    // `device` may
  };

  ThreadPool& pool();
  void open();
  void reserve(Slot& slot, std::size_t bytes);
  void wait_for(cudaEvent_t event);

  int threads_;
  std::size_t piece_bytes_;
  std::shared_ptr<DeviceWait> wait_;
  std::unique_ptr<ThreadPool> pool_;
  cudaStream_t copies_ = nullptr;
  std::array<Slot, 2> slots_;
  std::size_t next_ = 0;
};

}  // namespace paceline::kernels::cuda
