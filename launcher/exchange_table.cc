#include "launcher/exchange_table.h"

#include <fmt/format.h>

#include "launcher/commit.h"
#include "launcher/version.h"
#include "runtime/bench/statistics.h"

namespace paceline::launcher {

double ExchangeTiming::algorithm_gb_per_s() const {
  return runtime::ratio(static_cast<double>(bytes) * 1e-9, mean_us * 1e-6);
}

double ExchangeTiming::bus_gb_per_s() const {
  const double links = operation == "all_gather" ? 1 : 2;
  return algorithm_gb_per_s() * links * (ranks - 1) / ranks;
}

std::vector<std::uint64_t> exchange_sizes(std::uint64_t least, std::uint64_t most) {
  std::vector<std::uint64_t> sizes;
  std::uint64_t size = 1;
  while (size < least) size *= 2;
  for (; size <= most; size *= 2) sizes.push_back(size);
  return sizes;
}

std::string exchange_table(const std::vector<ExchangeTiming>& timings) {
  std::string text = fmt::format("# {:<14}{:<12}{:>10}{:>11}{:>11}{:>10}{:>10}{:>8}\n", "exchange",
                                 "operation", "size", "time", "best", "algbw", "busbw", "#wrong");
  text += fmt::format("# {:<14}{:<12}{:>10}{:>11}{:>11}{:>10}{:>10}{:>8}\n", "", "", "(B)", "(us)",
                      "(us)", "(GB/s)", "(GB/s)", "");
  for (const ExchangeTiming& timing : timings) {
    text +=
        fmt::format("  {:<14}{:<12}{:>10}{:>11.2f}{:>11.2f}{:>10.3f}{:>10.3f}{:>8}\n",
                    timing.exchange, timing.operation, timing.bytes, timing.mean_us, timing.min_us,
                    timing.algorithm_gb_per_s(), timing.bus_gb_per_s(), timing.wrong);
  }
  return text;
}

runtime::OrderedJson exchange_json(const std::vector<ExchangeTiming>& timings) {
  runtime::OrderedJson json;
  json["schema"] = 1;
  json["paceline"] = kVersion;
  json["commit"] = kCommit;
  json["exchanges"] = runtime::OrderedJson::array();
  for (const ExchangeTiming& timing : timings) {
    json["exchanges"].push_back({{"exchange", timing.exchange},
                                 {"operation", timing.operation},
                                 {"ranks", timing.ranks},
                                 {"bytes", timing.bytes},
                                 {"mean_us", timing.mean_us},
                                 {"min_us", timing.min_us},
                                 {"algbw_gb_per_s", timing.algorithm_gb_per_s()},
                                 {"busbw_gb_per_s", timing.bus_gb_per_s()},
                                 {"wrong", timing.wrong}});
  }
  return json;
}

}  // namespace paceline::launcher
