#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/mailbox.h"
#include "parallel/nccl/group.h"
#include "parallel/rank_state.h"
#include "parallel/signals.h"

namespace paceline::parallel {

/// How the ranks of a replica exchange data. kAuto: by NCCL where each has a GPU of its own, else
/// through shared memory where all are on one node.
enum class Exchange { kAuto, kShared, kMpi, kNccl };

/// "auto", "shared", "mpi" or "nccl"; ConfigError for anything else.
Exchange parse_exchange(std::string_view name);

/// The MPI library in use, "Open MPI v4.1.4".
std::string mpi_version();

/// This process as one rank of an MPI job, or as the only one if nothing launched it. One per
/// process; all members are for the main thread. Ranks that die are noticed by a watchdog.
class World {
 public:
  /// Starts MPI and meets the other ranks. `signals` must have been made before any thread.
  explicit World(Signals& signals);
  /// Leaves the job together with the other ranks; if an exception is passing through, aborts it.
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  int rank() const;
  int size() const;
  const std::string& host() const;
  /// The place among the ranks of this node.
  int local_rank() const;
  int local_size() const;
  /// The CPUs that the ranks of this node may use together, before the launcher bound each to some.
  const std::vector<int>& node_cpus() const;
  /// "rank 3 on node1"
  std::string name(int rank) const;

  /// What this rank does from now on, for messages, and how long it waits for others meanwhile.
  void enter(std::string_view phase, std::chrono::milliseconds patience = kPatience);
  /// Spin less: more ranks or threads on the node than cores.
  void set_crowded(bool crowded);

  /// All ranks, by MPI.
  Communicator& all();
  Mailbox& mailbox();

  /// Cuts the world into replicas of `tp` consecutive ranks and returns this rank's (all ranks
  /// call it). They exchange by way of the host, with kNccl as with kAuto, until connect_devices.
  /// ConfigError if the ranks do not divide so, or if kShared is not possible.
  std::unique_ptr<Communicator> split_replicas(int tp, Exchange exchange = Exchange::kAuto);
  /// From now on this rank's waits for its backend's device, if it has one, are waits like those
  /// for other ranks: when the phase's patience is over the job ends and says so.
  void watch_device(const kernels::Backend& backend);
  /// Why the ranks of this replica cannot exchange by NCCL, the same text on all of them; empty if
  /// they can. All of them call it, each with its backend.
  std::string nccl_obstacle(Communicator& replica, const kernels::Backend& backend) const;
  /// The replica with its devices connected by NCCL, if nothing stands in the way. All of its ranks
  /// call it; FatalError where that fails.
  std::unique_ptr<Communicator> connect_devices(std::unique_ptr<Communicator> replica,
                                                const kernels::Backend& backend,
                                                AllReduce all_reduce);

  /// Ends all ranks, with one line on standard error, even if others are stuck:
  /// `paceline: rank R on HOST in PHASE: message`.
  [[noreturn]] void abort(int code, std::string_view message);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace paceline::parallel
