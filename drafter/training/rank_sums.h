#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "parallel/communicator.h"

namespace paceline::drafter {

/// Sums over the ranks of a group, in the order of the ranks, so with the same bits on each of
/// them. All ranks make the same calls with equal sizes.
class RankSums {
 public:
  /// `chunk` numbers of each rank are exchanged at a time: what bounds the memory. The group must
  /// outlive it.
  explicit RankSums(parallel::Communicator& group, std::size_t chunk = std::size_t{1} << 18);

  /// values[i] := the sum over the ranks of their values[i].
  void sum(std::span<float> values);
  void sum(std::span<double> values);

  parallel::Communicator& group() const { return group_; }

 private:
  template <typename T>
  void sum_chunks(std::span<T> values);

  parallel::Communicator& group_;
  std::size_t chunk_;
  std::vector<std::byte> gathered_;
};

}  // namespace paceline::drafter
