#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/core/device_wait.h"
#include "kernels/core/function_ref.h"
#include "kernels/core/matrix_source.h"
#include "kernels/drafting_params.h"
#include "kernels/params.h"

namespace paceline::kernels {

/// Memory of a backend's device, 64-byte aligned and zeroed. Moves, never copies.
class Buffer {
 public:
  using Release = std::function<void(void*)>;
  Buffer() = default;
  Buffer(void* data, std::size_t bytes, Release release)
      : data_(data, std::move(release)), bytes_(bytes) {}
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_.get());
  }
  std::size_t bytes() const { return bytes_; }

 private:
  std::unique_ptr<void, Release> data_{nullptr, [](void*) {}};
  std::size_t bytes_ = 0;
};

/// Where a backend's ops run one after the other, for libraries whose work is to take its turn
/// there.
struct NativeStream {
  void* stream = nullptr;  // CUDA's cudaStream_t
  int device = 0;          // as this process numbers it
  std::string device_id;   // the same in every process that uses the device: "GPU-6f2c..."
  std::shared_ptr<DeviceWait> wait = {};  // the backend's calls that may wait for the device
};

/// What became of the calls of Backend::repeat.
struct RepeatCounts {
  std::int64_t recorded = 0;
  std::int64_t repeated = 0;   // what had been recorded, without calling it
  std::int64_t forgotten = 0;  // times that all of it was
};

/// A copy of device memory on its way to the host.
class Readback {
 public:
  struct Part {
    const void* device = nullptr;
    std::size_t bytes = 0;
  };
  virtual ~Readback() = default;
  /// Puts copies behind the ops that have been called; what earlier ones brought is gone.
  virtual void start(std::span<const Part> parts) = 0;
  /// Waits for them, but for no op called after `start`. The parts, one after the other; valid
  /// until the next `start`.
  virtual const std::byte* wait() = 0;
};

/// Everything that runs on a device. Two backends that share a `numerics()` give the same bits for
/// the same parameters; within one, a row's result depends on that row alone.
/// Ops run in the order they are called; results may be read after `synchronize`.
class Backend {
 public:
  virtual ~Backend() = default;

  /// What the bits depend on: "cpu", "cuda", and more behind a comma where a library multiplies.
  /// The reference backend shares the CPU's.
  virtual std::string_view numerics() const = 0;
  /// For people: instruction set, threads.
  virtual std::string description() const = 0;

  /// Bytes that the device could still give to this process and others; none if that is the host's
  /// memory.
  virtual std::optional<std::uint64_t> free_memory() const { return std::nullopt; }
  /// None where the ops are done when they return.
  virtual std::optional<NativeStream> native_stream() const { return std::nullopt; }
  /// Whether the host reads and writes what `allocate` gives as it does its own memory.
  virtual bool shares_host_memory() const = 0;
  virtual Buffer allocate(std::size_t bytes) = 0;
  /// `host` may be written again when it returns; ops called before read what was there before.
  virtual void upload(void* device, const void* host, std::size_t bytes) = 0;
  virtual void download(void* host, const void* device, std::size_t bytes) = 0;
  virtual void synchronize() = 0;
  /// The backend must outlive it.
  virtual std::unique_ptr<Readback> make_readback();

  /// Calls `ops`, which does nothing but call ops of this backend; or does what they did when they
  /// were called under the same `key` before, without calling them. So the key must tell apart all
  /// that their parameters depend on, whose memory it is, too; only that a buffer has moved it need
  /// not.
  virtual void repeat(std::span<const std::int64_t> /*key*/, FunctionRef<void()> ops) { ops(); }
  /// What has been repeated is called anew. A backend does so by itself when it allocates memory,
  /// but not when the scratch memory of its own ops grows: how much an op needs depends on a rank's
  /// shards, and ranks that exchange in what they repeat must forget alike (docs/cuda.md).
  virtual void forget_repeats() {}
  virtual RepeatCounts repeat_counts() const { return {}; }

  /// Lays a matrix out for `linear` and `embed`. The reduction's columns are the matrix's own,
  /// ascending, without gaps, each boundary at a multiple of the format's activation group.
  virtual std::unique_ptr<PackedMatrix> pack(const MatrixSource& matrix,
                                             const Reduction& reduction) = 0;

  virtual void linear(const LinearParams& params) = 0;
  virtual void embed(const EmbedParams& params) = 0;
  virtual void sum_partials(const SumPartialsParams& params) = 0;
  virtual void rms_norm(const RmsNormParams& params) = 0;
  virtual void rope_table(const RopeTableParams& params) = 0;
  virtual void rope_append(const RopeAppendParams& params) = 0;
  virtual void attention(const AttentionParams& params) = 0;
  virtual void gather_rows(const GatherRowsParams& params) = 0;
  virtual void join_rows(const JoinRowsParams& params) = 0;
  virtual void place_columns(const PlaceColumnsParams& params) = 0;
  virtual void activate(const ActivateParams& params) = 0;
  virtual void top_log_probs(const TopLogProbsParams& params) = 0;
  virtual void place_beams(const PlaceBeamsParams& params) = 0;
  virtual void extend_beams(const ExtendBeamsParams& params) = 0;
  virtual void merge_beams(const MergeBeamsParams& params) = 0;
  virtual void resume_sequences(const ResumeSequencesParams& params) = 0;
  virtual void place_trees(const PlaceTreesParams& params) = 0;
  virtual void accept_paths(const AcceptPathsParams& params) = 0;
  virtual void compact_kv(const CompactKvParams& params) = 0;
  virtual void select_tokens(const SelectTokensParams& params) = 0;
  virtual void largest_logits(const LargestLogitsParams& params) = 0;
  virtual void merge_largest(const MergeLargestParams& params) = 0;
  virtual void token_log_probs(const TokenLogProbsParams& params) = 0;
  virtual void sum_words(const SumWordsParams& params) = 0;
};

/// Plain scalar C++, one thread: the oracle of every test.
std::unique_ptr<Backend> make_reference_backend();

struct CpuOptions {
  int threads = 1;  // worker threads, the caller included
  // "avx2", "avx512", "avx512vnni", "avx512bf16", "amx"; empty: the best of the machine but amx
  std::string isa = {};
  std::vector<int> cpus = {};  // CPU that each thread is bound to, the caller first; empty: none
};

/// Throws ConfigError if the machine lacks AVX2 (with FMA and F16C) or the instruction set asked
/// for, naming those it has, or if a thread cannot be bound to its CPU.
std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options);

/// The instruction sets of the CPU backend that this machine can run, best first.
std::span<const std::string_view> supported_isas();

}  // namespace paceline::kernels
