#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "kernels/api.h"
#include "parallel/communicator.h"
#include "parallel/nccl/calls.h"
#include "parallel/rank_state.h"

namespace paceline::parallel {

/// Who adds the ranks' sums: kCanonical, we, in the order of parallel/shards.h; kNccl,
/// ncclAllReduce in its own, so that results depend on the number of ranks and on how many rows go
/// at once.
enum class AllReduce { kCanonical, kNccl };

/// "canonical" or "nccl"; ConfigError for anything else.
AllReduce parse_all_reduce(std::string_view name);

/// Why the ranks of a group cannot exchange by NCCL, the same text on all of them; empty if they
/// can. `stream` is this rank's backend's, none without a device. Called by all members.
std::string nccl_obstacle(Communicator& group, const MemberNames& names,
                          const kernels::NativeStream* stream);

/// What a group by NCCL is made of.
struct NcclMembers {
  std::unique_ptr<Communicator> host;         // the same ranks by way of the host
  MemberNames names;                          // by rank within the group
  const RankState& state;                     // outlives the group
  std::shared_ptr<kernels::DeviceWait> wait;  // NativeStream::wait of this rank's stream
  /// Ends the job, with this message if it is the first; must not wait for NCCL, MPI or other
  /// ranks. Any thread; may return before the end.
  std::function<void(std::string_view)> end_job;
};

/// A group whose devices exchange by NCCL and whose hosts exchange as they did. Called by all
/// members; throws FatalError, after end_job, if they have not met when the phase's patience is
/// over. An exchange that fails, or that has not ended when the phase's patience is over, ends the
/// job: end_job first, then ncclCommAbort, so that whoever waits for the stream wakes up; the
/// group's operations throw FatalError from then on.
std::unique_ptr<Communicator> make_nccl_group(NcclMembers members, std::unique_ptr<NcclCalls> calls,
                                              AllReduce all_reduce);

}  // namespace paceline::parallel
