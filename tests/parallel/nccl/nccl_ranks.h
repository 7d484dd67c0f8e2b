#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "parallel/nccl/group.h"
#include "tests/parallel/nccl/fake_nccl.h"
#include "tests/parallel/rank_threads.h"

namespace paceline::parallel {

/// A group around another one, not owned: run_ranks keeps its groups.
class BorrowedGroup final : public Communicator {
 public:
  explicit BorrowedGroup(Communicator& group) : group_(group) {}
  int rank() const override { return group_.rank(); }
  int size() const override { return group_.size(); }
  std::string_view exchange() const override { return group_.exchange(); }
  void all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                  std::span<const std::size_t> sizes) override {
    group_.all_gather(mine, all, sizes);
  }
  void gather_slices(std::span<const std::byte> mine, std::span<std::byte> out,
                     std::span<const std::int64_t> rows,
                     std::span<const std::size_t> slices) override {
    group_.gather_slices(mine, out, rows, slices);
  }
  void broadcast(std::span<std::byte> data, int root) override { group_.broadcast(data, root); }
  void barrier() override { group_.barrier(); }

 private:
  Communicator& group_;
};

/// What ends jobs in tests.
struct JobEnds {
  std::mutex mutex;
  std::vector<std::string> messages;
  std::vector<std::string> all() {
    const std::lock_guard lock(mutex);
    return messages;
  }
};

/// Where a rank's exchanges take place.
struct NcclStream {
  std::shared_ptr<kernels::DeviceWait> wait = std::make_shared<kernels::DeviceWait>();
  FakeNcclNetwork::Put put = FakeNcclNetwork::at_once;
};

inline std::unique_ptr<Communicator> join_nccl(Communicator& host, FakeNcclNetwork& network,
                                               const RankState& state, JobEnds& ends,
                                               AllReduce all_reduce = AllReduce::kCanonical,
                                               const NcclStream& stream = {}) {
  return make_nccl_group({.host = std::make_unique<BorrowedGroup>(host),
                          .names = names_of(host.size()),
                          .state = state,
                          .wait = stream.wait,
                          .end_job =
                              [&ends](std::string_view message) {
                                const std::lock_guard lock(ends.mutex);
                                ends.messages.emplace_back(message);
                              }},
                         network.calls(stream.put), all_reduce);
}

/// Runs `body` as every rank of a group by the fake NCCL, each a thread.
inline void run_nccl_ranks(FakeNcclNetwork& network, int size, AllReduce all_reduce,
                           const std::function<void(Communicator&)>& body) {
  RankState state;
  state.set_crowded(true);
  JobEnds ends;
  run_ranks(size, kSharedChunk, state, [&](Communicator& host) {
    const auto group = join_nccl(host, network, state, ends, all_reduce);
    body(*group);
  });
}

}  // namespace paceline::parallel
