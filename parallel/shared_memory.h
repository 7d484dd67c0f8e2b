#pragma once

#include <sys/types.h>

#include <cstddef>
#include <memory>
#include <span>

#include "parallel/communicator.h"
#include "parallel/rank_state.h"

namespace paceline::parallel {

/// Zeroed memory that the processes of one node can map. It has no name in any file system, so
/// nothing is left behind whoever dies when.
class SharedSegment {
 public:
  /// New memory, reserved now. Throws std::system_error if there is none.
  explicit SharedSegment(std::size_t bytes);
  /// Another process's segment, by its file descriptor there. Throws std::system_error.
  SharedSegment(pid_t owner, int descriptor, std::size_t bytes);
  ~SharedSegment();
  SharedSegment(const SharedSegment&) = delete;
  SharedSegment& operator=(const SharedSegment&) = delete;

  std::span<std::byte> bytes() const { return bytes_; }
  int descriptor() const { return descriptor_; }
  /// Call when every process has mapped it.
  void close_descriptor();

 private:
  void map(std::size_t bytes);
  int descriptor_ = -1;
  std::span<std::byte> bytes_;
};

/// One segment mapped by every member of a group (called by all). Null, on all of them, if any
/// cannot map it: they are not on one node, or may not see each other.
std::shared_ptr<SharedSegment> share_segment(Communicator& group, std::size_t bytes);

/// Bytes that a group exchanges in one go; more goes in several.
inline constexpr std::size_t kSharedChunk = 128 * 1024;

/// What make_shared_group needs for that many ranks.
std::size_t shared_group_bytes(int size, std::size_t chunk = kSharedChunk);

/// A group that exchanges through a segment of zeroed memory, one rank per process (or, in tests,
/// per thread). `state` must outlive it.
std::unique_ptr<Communicator> make_shared_group(std::shared_ptr<SharedSegment> segment, int rank,
                                                MemberNames names, const RankState& state,
                                                std::size_t chunk = kSharedChunk);

}  // namespace paceline::parallel
