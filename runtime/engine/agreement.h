#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "kernels/api.h"
#include "parallel/communicator.h"
#include "runtime/engine/control.h"

namespace paceline::runtime {

/// A running hash of what a step decided (FNV-1a over 64-bit words): equal on ranks that agree.
class DecisionHash {
 public:
  void add(std::uint64_t word) {
    for (int byte = 0; byte < 8; ++byte) {
      hash_ = (hash_ ^ (word >> (8 * byte) & 0xff)) * 0x100000001b3ULL;
    }
  }
  std::uint64_t value() const { return hash_; }

 private:
  std::uint64_t hash_ = 0xcbf29ce484222325ULL;
};

/// The contract's fifth rule. Before each step the ranks of a replica exchange the hash of what
/// they decided in the step before, and the leader's control. Where a rank's backend has forgotten
/// since the step before what it repeats, all forget, so that they record and repeat alike.
class Agreement {
 public:
  /// `terminate` says whether this process has been asked to end.
  Agreement(parallel::Communicator& communicator, kernels::Backend& backend,
            std::function<bool()> terminate)
      : communicator_(communicator), backend_(backend), terminate_(std::move(terminate)) {}

  /// Returns the leader's control on every rank. After it returns, the decisions of all earlier
  /// steps are known to be equal. Throws FatalError naming two ranks that differ, and the step.
  Control exchange(const Control& mine, std::uint64_t last_decisions);

  /// Some rank had been asked to end by the last exchange: the same answer on all ranks.
  bool termination_requested() const { return termination_requested_; }

 private:
  struct Header {
    std::uint64_t decisions = 0;
    std::uint64_t control_bytes = 0;
    std::uint64_t terminate = 0;
    std::uint64_t forgot = 0;
  };
  static bool any(const std::vector<Header>& headers, std::uint64_t Header::*flag);

  parallel::Communicator& communicator_;
  kernels::Backend& backend_;
  std::function<bool()> terminate_;
  bool termination_requested_ = false;
  std::int64_t step_ = 0;       // steps exchanged so far
  std::int64_t forgotten_ = 0;  // RepeatCounts::forgotten after the last exchange
};

}  // namespace paceline::runtime
