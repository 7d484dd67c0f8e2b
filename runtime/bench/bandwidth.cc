#include "runtime/bench/bandwidth.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "runtime/bench/statistics.h"

namespace paceline::runtime {

std::size_t bandwidth_bytes(int threads) {
  constexpr std::size_t kLeast = std::size_t{128} << 20;
  constexpr std::size_t kPerThread = std::size_t{16} << 20;
  const auto cache = static_cast<std::size_t>(std::max(0L, sysconf(_SC_LEVEL3_CACHE_SIZE)));
  return std::max(kLeast, 2 * cache + static_cast<std::size_t>(threads) * kPerThread);
}

double read_bandwidth(kernels::Backend& backend, std::size_t bytes) {
  const std::size_t words = bytes / sizeof(std::uint64_t);
  const kernels::Buffer memory = backend.allocate(words * sizeof(std::uint64_t));
  const kernels::Buffer sum = backend.allocate(sizeof(std::uint64_t));
  // Pages that nobody has written are all one page of zeros to the system.
  const std::vector<std::uint64_t> ones(std::min<std::size_t>(words, 4096), 1);
  for (std::size_t done = 0; done < words; done += ones.size()) {
    const std::size_t count = std::min(ones.size(), words - done);
    backend.upload(memory.as<std::uint64_t>() + done, ones.data(), count * sizeof(std::uint64_t));
  }
  constexpr int kPasses = 5;
  std::vector<double> rates;
  for (int pass = -1; pass < kPasses; ++pass) {  // the first one warms up
    const auto begin = std::chrono::steady_clock::now();
    backend.sum_words({.words = memory.as<std::uint64_t>(),
                       .sum = sum.as<std::uint64_t>(),
                       .count = static_cast<std::int64_t>(words)});
    backend.synchronize();
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
    if (pass < 0) continue;
    rates.push_back(ratio(static_cast<double>(words * sizeof(std::uint64_t)), time.count()));
  }
  return percentile(rates, 0.5);
}

}  // namespace paceline::runtime
