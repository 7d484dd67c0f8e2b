#include "parallel/placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <numeric>
#include <thread>

namespace paceline::parallel {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Four cores with two hardware threads each, numbered as Linux does.
const std::vector<Core> kFourCores = {{0, 4}, {1, 5}, {2, 6}, {3, 7}};

TEST(PlaceTest, DealsCoresInConsecutiveRuns) {
  const Placement first = place(kFourCores, 0, 2, 0, 0);
  EXPECT_EQ(first.threads, 2);
  EXPECT_THAT(first.cpus, ElementsAre(0, 1));
  EXPECT_FALSE(first.oversubscribed);
  EXPECT_EQ(first.text, "2 threads on CPU 0-1");
  EXPECT_THAT(place(kFourCores, 1, 2, 0, 0).cpus, ElementsAre(2, 3));
}

TEST(PlaceTest, UsesOtherHardwareThreadsOnlyWhenCoresRunOut) {
  EXPECT_THAT(place(kFourCores, 1, 2, 3, 0).cpus, ElementsAre(2, 3, 6));
  EXPECT_THAT(place(kFourCores, 0, 1, 1, 0).cpus, ElementsAre(0));
}

TEST(PlaceTest, EveryRankGetsAsManyThreads) {
  for (int rank = 0; rank < 3; ++rank) EXPECT_EQ(place(kFourCores, rank, 3, 0, 0).threads, 1);
  EXPECT_THAT(place(kFourCores, 2, 3, 0, 0).cpus, ElementsAre(2));
}

TEST(PlaceTest, BindsNothingWhenThereAreTooFewCores) {
  const Placement crowd = place(kFourCores, 5, 8, 0, 0);
  EXPECT_EQ(crowd.threads, 1);
  EXPECT_THAT(crowd.cpus, IsEmpty());
  EXPECT_TRUE(crowd.oversubscribed);
  EXPECT_EQ(crowd.text, "1 thread, not bound: 8 ranks of 1 thread share 4 cores");
  const Placement threads = place(kFourCores, 0, 2, 5, 0);
  EXPECT_THAT(threads.cpus, IsEmpty());
  EXPECT_TRUE(threads.oversubscribed);
}

TEST(PlaceTest, AQuotaLimitsTheThreadsThatNobodyAskedFor) {
  EXPECT_EQ(place(kFourCores, 0, 1, 0, 2.0).threads, 2);
  EXPECT_EQ(place(kFourCores, 0, 1, 0, 1.5).threads, 2);
  EXPECT_EQ(place(kFourCores, 0, 4, 0, 2.0).threads, 1);
  EXPECT_TRUE(place(kFourCores, 0, 4, 0, 2.0).oversubscribed);
  EXPECT_EQ(place(kFourCores, 0, 1, 4, 2.0).threads, 4);
}

TEST(FindCoresTest, CoversTheAllowedCpusOnce) {
  const std::vector<int> allowed = allowed_cpus();
  std::vector<int> found;
  for (const Core& core : find_cores(allowed)) found.insert(found.end(), core.begin(), core.end());
  std::ranges::sort(found);
  EXPECT_EQ(found, allowed);
}

TEST(BindTest, AThreadRunsWhereItIsBound) {
  const std::vector<Core> cores = find_cores(allowed_cpus());
  std::thread([&] {
    const Placement placement = place(cores, 0, 1, 1, 0);
    bind(placement);
    EXPECT_EQ(sched_getcpu(), placement.cpus.at(0));
    bind_to_cpu(cores.back().front());
    EXPECT_EQ(sched_getcpu(), cores.back().front());
  }).join();
}

// CPUs that the calling thread may use.
int usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof(set), &set);
  return CPU_COUNT(&set);
}

TEST(BindTest, AKeptBindingUndoesWhatWasBoundMeanwhile) {
  const std::vector<int> cpus = allowed_cpus();
  std::thread([&] {
    const int before = usable_cpus();
    {
      const KeptBinding kept;
      bind_to_cpu(cpus.front());
      EXPECT_EQ(usable_cpus(), 1);
    }
    EXPECT_EQ(usable_cpus(), before);
  }).join();
}

}  // namespace
}  // namespace paceline::parallel
