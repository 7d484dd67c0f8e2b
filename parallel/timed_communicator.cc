#include "parallel/timed_communicator.h"

#include <chrono>

namespace paceline::parallel {

template <typename Operation>
void TimedCommunicator::time(const Operation& operation) {
  const auto begin = std::chrono::steady_clock::now();
  operation();
  seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  ++calls_;
}

void TimedCommunicator::all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                                   std::span<const std::size_t> sizes) {
  time([&] { group_.all_gather(mine, all, sizes); });
}

void TimedCommunicator::gather_slices(std::span<const std::byte> mine, std::span<std::byte> out,
                                      std::span<const std::int64_t> rows,
                                      std::span<const std::size_t> slices) {
  time([&] { group_.gather_slices(mine, out, rows, slices); });
}

void TimedCommunicator::broadcast(std::span<std::byte> data, int root) {
  time([&] { group_.broadcast(data, root); });
}

void TimedCommunicator::barrier() {
  time([&] { group_.barrier(); });
}

}  // namespace paceline::parallel
