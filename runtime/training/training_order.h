#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace paceline::runtime {

/// How texts are dealt to minibatches and ranks.
struct OrderOptions {
  std::int64_t batch_positions = 1024;  ///< of a minibatch, over all ranks; about
  std::int64_t group_positions = 65536;
  std::int32_t window = 64;
  std::uint64_t seed = 0;
  int replicas = 1;
  int ranks_per_replica = 1;
};

/// Consecutive positions of one text.
struct Window {
  std::int32_t text = 0;
  std::int32_t first = 0;
  std::int32_t positions = 0;
  bool operator==(const Window&) const = default;
};

/// The order in which a training sees its data, from the texts' sizes and a seed alone, so that
/// every rank knows it and a training can go on from any minibatch.
///
/// An epoch takes the texts in random order and cuts them into groups of about group_positions:
/// what is held at once. Text t is replica t % replicas' in every epoch; there it is cut into
/// windows, and the group's windows are shuffled and dealt to the replica's ranks in turn. A rank's
/// windows in a row are its positions; each of the group's minibatches takes an even share of them.
///
/// Example: texts of 5, 3 and 4 positions, windows of 2, one rank, minibatches of 6: one group of
/// 12 positions, windows (0, 0-1) (0, 2-3) (0, 4) (1, 0-1) (1, 2) (2, 0-1) (2, 2-3) in some order,
/// and two minibatches of 6, the window at their border cut in two if need be.
class TrainingOrder {
 public:
  /// positions: of each text. FatalError if there are none at all.
  TrainingOrder(std::vector<std::int32_t> positions, const OrderOptions& options);

  struct Place {
    std::uint64_t epoch = 0;
    std::size_t group = 0;
    std::int64_t minibatch = 0;  ///< of the group
  };
  Place place(std::uint64_t minibatch);
  /// Minibatches of the first `epochs` epochs.
  std::uint64_t minibatches(std::uint64_t epochs);

  /// The texts of one replica in a group.
  std::vector<std::int32_t> texts(std::uint64_t epoch, std::size_t group, int replica);
  /// A rank's part of a minibatch; `rank` counts within its replica.
  std::vector<Window> windows(const Place& place, int replica, int rank);

 private:
  struct Epoch {
    std::uint64_t number = 0;
    std::vector<std::int32_t> texts;          // in order
    std::vector<std::size_t> group_begins;    // in texts, and its end
    std::vector<std::uint64_t> group_starts;  // first minibatch of each group, and their number
  };
  /// A rank's windows of a group, all minibatches.
  struct Dealt {
    std::uint64_t epoch = 0;
    std::size_t group = 0;
    int replica = -1;
    std::vector<std::vector<Window>> by_rank;
  };

  const Epoch& epoch(std::uint64_t number);
  std::int64_t group_positions(const Epoch& epoch, std::size_t group) const;
  std::int64_t group_minibatches(std::int64_t positions) const;
  const Dealt& dealt(std::uint64_t epoch, std::size_t group, int replica);

  std::vector<std::int32_t> positions_;
  OrderOptions options_;
  Epoch epoch_;                                 // the last asked for
  std::vector<std::uint64_t> epoch_starts_{0};  // first minibatch of each epoch known so far
  Dealt dealt_;                                 // the last asked for
};

}  // namespace paceline::runtime
