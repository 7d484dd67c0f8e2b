#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/api.h"

namespace paceline::parallel {

/// Exchanges between the memories of a group's devices, in the order of each one's stream: a call
/// returns before they are done, and what comes behind it on the stream sees their results. As with
/// a Communicator all members call the same ones with agreeing sizes. Throws FatalError where
/// something is known to have failed; what fails later ends the job.
class DeviceExchange {
 public:
  virtual ~DeviceExchange() = default;
  /// Blocks of counts[r] floats of each rank r, one after the other in `all`, on every rank; this
  /// rank's is there already.
  virtual void all_gather(float* all, std::span<const std::size_t> counts) = 0;
  /// Communicator::gather_slices(), in floats.
  virtual void gather_slices(const float* mine, float* out, std::span<const std::int64_t> rows,
                             std::span<const std::size_t> slices) = 0;
  /// Adds up the ranks' `sum` [count] in an order that is the library's: the same bits on all
  /// ranks, but they depend on `count`, on the number of ranks and on how they are connected.
  virtual void all_reduce(float* sum, std::size_t count) = 0;
  /// Whether sums are to be left to all_reduce().
  virtual bool reduces() const = 0;
  /// Memory that exchanges are fastest from and to, as the library can make it known to all ranks;
  /// not zeroed. No bytes where it has none to give: then on all ranks. All members call it at the
  /// same time with the same size, and free it at the same time, before the exchange ends and after
  /// what was recorded with it is forgotten.
  virtual kernels::Buffer allocate(std::size_t bytes) = 0;
};

/// A group of ranks, usually those that hold one replica of the model. All members call the same
/// operations in the same order with agreeing sizes. An operation that has waited longer than the
/// phase's patience throws FatalError and names the ranks that did not come; the job cannot go on.
class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  virtual int rank() const = 0;  // within the group
  virtual int size() const = 0;
  /// "single", "shared memory", "MPI", "NCCL"
  virtual std::string_view exchange() const = 0;

  /// Every rank's bytes on every rank, in rank order without gaps. sizes.size() == size(), `mine`
  /// is sizes[rank()] bytes, `all` their sum. `mine` may already lie at its place in `all`;
  /// otherwise the two must not overlap.
  virtual void all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                          std::span<const std::size_t> sizes) = 0;
  /// This rank's slice of every rank's rows. Rank r has rows[r] rows, all of the same size, cut
  /// into slices[0] bytes for rank 0, slices[1] for rank 1 and so on; `out` gets slices[rank()]
  /// bytes of each row, ranks ascending, without gaps. `mine` and `out` do not overlap. Example:
  /// rank 0 has one row ab, rank 1 two, cd and ef, slices of one byte: rank 0 gets ace, rank 1 bdf.
  virtual void gather_slices(std::span<const std::byte> mine, std::span<std::byte> out,
                             std::span<const std::int64_t> rows,
                             std::span<const std::size_t> slices) = 0;
  /// The root's data on every rank; data.size() agrees on all of them.
  virtual void broadcast(std::span<std::byte> data, int root) = 0;
  /// Returns when every rank has called it.
  virtual void barrier() = 0;
  /// How the ranks' devices exchange without the host; null where they do not.
  virtual DeviceExchange* device() { return nullptr; }
};

/// The ranks of a group as people know them: "rank 3 on node1", indexed by rank within the group.
using MemberNames = std::vector<std::string>;

/// "rank 1 on node1 and rank 3 on node2": the members for which `missing` is true.
std::string join_names(const MemberNames& names, const std::vector<bool>& missing);

/// A group of one.
std::unique_ptr<Communicator> make_single();

/// Throws FatalError unless the sizes of an all_gather fit together. Returns where this rank's
/// block begins.
std::size_t check_gather(const Communicator& group, std::span<const std::byte> mine,
                         std::span<std::byte> all, std::span<const std::size_t> sizes);

/// Throws FatalError unless the sizes of a gather_slices fit together. Returns the size of a row.
std::size_t check_slices(const Communicator& group, std::span<const std::byte> mine,
                         std::span<std::byte> out, std::span<const std::int64_t> rows,
                         std::span<const std::size_t> slices);

/// Bytes of a slice of some rows, row by row: `to` gets those from the `from`-th on.
struct RowSlice {
  std::span<const std::byte> rows;
  std::size_t row_bytes = 0;
  std::size_t begin = 0;  // of the slice in a row
  std::size_t bytes = 0;  // of the slice in a row
  void copy(std::size_t from, std::span<std::byte> to) const;
};

/// The slice for rank `r` of the rows of a gather_slices.
RowSlice slice_of(std::span<const std::byte> rows, std::size_t row_bytes,
                  std::span<const std::size_t> slices, int r);

}  // namespace paceline::parallel
