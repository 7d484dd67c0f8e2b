#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace paceline::parallel {

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
  /// "single", "shared memory", "MPI"
  virtual std::string_view exchange() const = 0;

  /// Every rank's bytes on every rank, in rank order without gaps. sizes.size() == size(), `mine`
  /// is sizes[rank()] bytes, `all` their sum. `mine` may already lie at its place in `all`;
  /// otherwise the two must not overlap.
  virtual void all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                          std::span<const std::size_t> sizes) = 0;
  /// The root's data on every rank; data.size() agrees on all of them.
  virtual void broadcast(std::span<std::byte> data, int root) = 0;
  /// Returns when every rank has called it.
  virtual void barrier() = 0;
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

}  // namespace paceline::parallel
