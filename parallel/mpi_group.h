#pragma once

#include <memory>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/rank_state.h"

namespace paceline::parallel {

/// A group of some of the world's ranks, by messages between them: every rank tells every other,
/// so that one that does not come can be named. `world_ranks` and `names` are indexed by rank
/// within the group; `state` must outlive it. MPI must be running; nothing is exchanged yet.
std::unique_ptr<Communicator> make_mpi_group(std::vector<int> world_ranks, int rank,
                                             MemberNames names, const RankState& state);

}  // namespace paceline::parallel
