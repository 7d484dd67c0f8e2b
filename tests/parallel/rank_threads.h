#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "parallel/shared_memory.h"

namespace paceline::parallel {

inline MemberNames names_of(int size) {
  MemberNames names;
  for (int rank = 0; rank < size; ++rank) names.push_back("rank " + std::to_string(rank));
  return names;
}

/// Runs `body` as every rank of a group, each a thread; the segment is what processes would map.
inline void run_ranks(int size, std::size_t chunk, const RankState& state,
                      const std::function<void(Communicator&)>& body) {
  const auto segment = std::make_shared<SharedSegment>(shared_group_bytes(size, chunk));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back(
        [&, rank] { body(*make_shared_group(segment, rank, names_of(size), state, chunk)); });
  }
  for (std::thread& thread : threads) thread.join();
}

/// With chunks of the usual size, for what only needs several ranks.
inline void run_ranks(int size, const std::function<void(Communicator&)>& body) {
  RankState state;
  state.set_crowded(true);
  run_ranks(size, kSharedChunk, state, body);
}

}  // namespace paceline::parallel
