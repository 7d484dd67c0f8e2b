#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kernels/api.h"
#include "parallel/communicator.h"

namespace paceline::parallel {

/// Partial sums of which every rank of a group has some.
struct PartialSums {
  std::vector<std::int64_t> counts;  // of each rank
  std::vector<int> merges;           // SumPartialsParams::merges for all of them, ranks ascending
};

/// All ranks' partials of a sum of `size` elements, in the workspace until it is used again.
struct GatheredPartials {
  const float* partials = nullptr;   // [merges.size(), size]
  std::span<const int> merges = {};  // SumPartialsParams::merges
};

/// The residual stream x [size] of some rows, the same on every rank. What was last added to it may
/// still be in parts, which the next norm adds in passing.
struct ResidualStream {
  float* x = nullptr;
  GatheredPartials pending = {};  // no merges: x is whole
};

/// What the layers of a rank share: where they compute, with whom, and one buffer for what is being
/// exchanged. The backend and the communicator must outlive it, and it the layers.
class ExchangeWorkspace {
 public:
  /// Sums are exchanged in slices (see `sum`) where that saves a rank this many bytes; if not given
  /// a guess for the kind of exchange. FatalError unless communicator.size() <= virtual_shards.
  ExchangeWorkspace(kernels::Backend& backend, Communicator& communicator, int virtual_shards,
                    std::optional<std::int64_t> worth_slicing = {});
  ~ExchangeWorkspace();
  ExchangeWorkspace(const ExchangeWorkspace&) = delete;
  ExchangeWorkspace& operator=(const ExchangeWorkspace&) = delete;

  kernels::Backend& backend() const { return backend_; }
  int rank() const { return communicator_.rank(); }
  int size() const { return communicator_.size(); }
  int virtual_shards() const { return virtual_shards_; }
  /// Whether layers do nothing but call ops of the backend, so that it may repeat them.
  bool stays_on_device() const {
    return communicator_.size() == 1 || communicator_.device() != nullptr;
  }

  /// Blocks of floats, one per rank, one after the other: this rank's is written, then gathered.
  struct Blocks {
    float* all = nullptr;
    float* mine = nullptr;
  };
  /// Room for `rows` times per_row[r] floats of each rank r; valid until the next call. Allocates
  /// only when rows exceed all that came before.
  Blocks prepare(std::span<const std::int64_t> per_row, std::int64_t rows);
  /// The same, in memory of the caller's.
  Blocks prepare_in(float* all, std::span<const std::int64_t> per_row, std::int64_t rows);
  /// Every rank's block on every rank, in the memory last prepared.
  void gather();

  /// Whether a library adds the ranks' sums, in an order of its own (DeviceExchange::reduces).
  bool reduces() const { return reduces_; }
  /// The partial sums of a row-parallel product: those of the subtrees that each rank owns, in the
  /// order of parallel/shards.h; where a library adds them one for each rank.
  PartialSums shard_sums() const;
  /// Room for this rank's partials [counts[rank()], size], to be written and then added by `sum` or
  /// `add` with the same arguments; valid until the next call.
  float* prepare_sum(const PartialSums& partials, std::int64_t size);
  /// out = the sum of all ranks' partials, each [size], on every rank. With few elements every rank
  /// gets all partials and adds them. With many, each gets its slice of them (of the elements),
  /// adds that, and the slices' sums are gathered: the same additions, so the same bits, for about
  /// 2 (n - 1) / n of a sum's bytes instead of n - 1.
  void sum(const PartialSums& partials, std::int64_t size, float* out);
  /// stream += the same sum, where the stream is whole; with few elements the partials are left for
  /// the next norm, or `settle`, to add.
  void add(const PartialSums& partials, std::int64_t size, ResidualStream& stream);
  /// Makes the stream whole.
  void settle(ResidualStream& stream, std::int64_t size);

 private:
  GatheredPartials gather_partials(const PartialSums& partials, std::int64_t size);
  /// out = residual + the sum, each rank adding its slice. residual may be null or out.
  void sum_slices(const PartialSums& partials, std::int64_t size, const float* residual,
                  float* out);
  float* reserve(std::int64_t floats);
  bool in_slices(const PartialSums& partials, std::int64_t size) const;
  /// The elements of a sum that each rank adds.
  void cut_slices(std::int64_t size);
  /// This rank's slice of all ranks' partials, each after the other in `received`.
  void gather_slices(const PartialSums& partials, std::int64_t size, float* received);
  /// Where the partials of the other ranks come, behind this rank's own.
  float* received_behind(const PartialSums& partials, std::int64_t size) const;

  kernels::Backend& backend_;
  Communicator& communicator_;
  int virtual_shards_;
  bool reduces_;
  std::int64_t worth_slicing_;
  kernels::Buffer buffer_;
  std::span<float> all_;             // last prepared
  std::vector<std::size_t> counts_;  // floats of each rank's block
  std::vector<std::size_t> bytes_;   // the same in bytes
  std::vector<std::int64_t> slices_;
  std::vector<std::byte> staged_, staged_out_;  // where the device's memory is not the host's
};

}  // namespace paceline::parallel
