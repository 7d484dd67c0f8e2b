#pragma once

#include <cstdint>

#include "parallel/communicator.h"

namespace paceline::parallel {

/// A group whose exchanges are counted and timed, for benchmarks. What a rank waits in them is what
/// the slower ranks take longer, and the exchange itself.
class TimedCommunicator final : public Communicator {
 public:
  /// `group` must outlive it.
  explicit TimedCommunicator(Communicator& group) : group_(group) {}

  int rank() const override { return group_.rank(); }
  int size() const override { return group_.size(); }
  std::string_view exchange() const override { return group_.exchange(); }
  void all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                  std::span<const std::size_t> sizes) override;
  void gather_slices(std::span<const std::byte> mine, std::span<std::byte> out,
                     std::span<const std::int64_t> rows,
                     std::span<const std::size_t> slices) override;
  void broadcast(std::span<std::byte> data, int root) override;
  void barrier() override;
  /// Not timed: the host does not wait for it.
  DeviceExchange* device() override { return group_.device(); }

  double seconds() const { return seconds_; }
  std::int64_t calls() const { return calls_; }

 private:
  template <typename Operation>
  void time(const Operation& operation);

  Communicator& group_;
  double seconds_ = 0;
  std::int64_t calls_ = 0;
};

}  // namespace paceline::parallel
