#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/files/json.h"

namespace paceline::launcher {

/// What one exchange of one size took.
struct ExchangeTiming {
  std::string exchange = {};   // "NCCL", "shared memory", "MPI"
  std::string operation = {};  // "all_gather", "ordered_sum", "all_reduce"
  std::uint64_t bytes = 0;     // all_gather: of all ranks' blocks together; else of the sum
  double mean_us = 0;          // over the iterations, of the slowest rank
  double min_us = 0;
  std::int64_t wrong = 0;  // elements that were not what they had to be
  int ranks = 1;

  /// Bytes per second as a caller sees them, in GB/s.
  double algorithm_gb_per_s() const;
  /// The same in what has to cross a rank's link however it is done, as nccl-tests count it:
  /// (n - 1) / n of that for all_gather, 2 (n - 1) / n for a sum on all ranks.
  double bus_gb_per_s() const;
};

/// Columns as nccl-tests print them.
std::string exchange_table(const std::vector<ExchangeTiming>& timings);
runtime::OrderedJson exchange_json(const std::vector<ExchangeTiming>& timings);

/// Powers of two from `least` to `most`, both included.
std::vector<std::uint64_t> exchange_sizes(std::uint64_t least, std::uint64_t most);

}  // namespace paceline::launcher
