#include "launcher/exchange_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace paceline::launcher {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(ExchangeSizes, ArePowersOfTwo) {
  EXPECT_THAT(exchange_sizes(4, 32), ElementsAre(4, 8, 16, 32));
  EXPECT_THAT(exchange_sizes(5, 31), ElementsAre(8, 16));
  EXPECT_THAT(exchange_sizes(17, 31), IsEmpty());
}

// A million bytes in a millisecond are 1 GB/s. Of four ranks each has to get 3/4 of what is
// gathered; a sum on all of them takes that twice.
TEST(ExchangeTiming, CountsBytesAsNcclTestsDo) {
  ExchangeTiming timing{.exchange = "MPI",
                        .operation = "all_gather",
                        .bytes = 1'000'000,
                        .mean_us = 1000,
                        .min_us = 900,
                        .ranks = 4};
  EXPECT_DOUBLE_EQ(timing.algorithm_gb_per_s(), 1);
  EXPECT_DOUBLE_EQ(timing.bus_gb_per_s(), 0.75);
  timing.operation = "ordered_sum";
  EXPECT_DOUBLE_EQ(timing.bus_gb_per_s(), 1.5);
}

TEST(ExchangeTable, IsALineForEachSize) {
  const std::vector<ExchangeTiming> timings = {{.exchange = "shared memory",
                                                .operation = "ordered_sum",
                                                .bytes = 4096,
                                                .mean_us = 2,
                                                .min_us = 1.5,
                                                .wrong = 0,
                                                .ranks = 2}};
  EXPECT_EQ(
      exchange_table(timings),
      "# exchange      operation         size       time       best     algbw     busbw  "
      "#wrong\n"
      "#                                  (B)       (us)       (us)    (GB/s)    (GB/s)        "
      "\n"
      "  shared memory ordered_sum       4096       2.00       1.50     2.048     2.048       "
      "0\n");
  const runtime::OrderedJson json = exchange_json(timings);
  EXPECT_EQ(json["schema"], 1);
  EXPECT_EQ(json["exchanges"][0]["bytes"], 4096);
  EXPECT_DOUBLE_EQ(json["exchanges"][0]["busbw_gb_per_s"].get<double>(), 2.048);
}

}  // namespace
}  // namespace paceline::launcher
