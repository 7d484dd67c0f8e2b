#include "kernels/core/thread_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <immintrin.h>
#include <sched.h>

#include <atomic>
#include <numeric>
#include <set>
#include <stdexcept>
#include <vector>

#include "kernels/core/error.h"

namespace paceline::kernels {
namespace {

TEST(ThreadPool, RunsEachTaskOnceWhateverTheNumberOfThreads) {
  for (int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (int tasks : {0, 1, 2, 5, 100}) {
      std::vector<std::atomic<int>> runs(static_cast<std::size_t>(tasks));
      pool.run(tasks, [&](int task) { ++runs[static_cast<std::size_t>(task)]; });
      for (const std::atomic<int>& count : runs) EXPECT_EQ(count.load(), 1);
    }
  }
}

TEST(ThreadPool, SeesEveryJobOfALongSequence) {
  ThreadPool pool(3);
  std::atomic<int> sum{0};
  int expected = 0;
  for (int job = 0; job < 5000; ++job) {
    const int tasks = job % 5;
    expected += tasks * job;
    pool.run(tasks, [&](int) { sum += job; });
    ASSERT_EQ(sum.load(), expected);
  }
}

TEST(ThreadPool, WorkersHelp) {
  ThreadPool pool(2);
  // Two tasks that wait for each other can only end on two threads.
  std::atomic<int> arrived{0};
  pool.run(2, [&](int) {
    ++arrived;
    while (arrived.load() < 2) _mm_pause();
  });
  EXPECT_EQ(arrived.load(), 2);
}

TEST(ThreadPool, WakesWorkersThatHaveGoneToSleep) {
  ThreadPool pool(2);
  for (int round = 0; round < 3; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    std::atomic<int> arrived{0};
    pool.run(2, [&](int) {
      ++arrived;
      while (arrived.load() < 2) _mm_pause();
    });
    EXPECT_EQ(arrived.load(), 2);
  }
}

TEST(ThreadPool, RethrowsATasksExceptionAndGoesOn) {
  for (int threads : {1, 3}) {
    ThreadPool pool(threads);
    EXPECT_THROW(pool.run(20,
                          [](int task) {
                            if (task == 7) throw std::runtime_error("task 7");
                          }),
                 std::runtime_error);
    std::atomic<int> runs{0};
    pool.run(20, [&](int) { ++runs; });
    EXPECT_EQ(runs.load(), 20);
  }
}

TEST(ThreadPool, TasksRunInTheStandardFloatEnvironment) {
  ThreadPool pool(2);
  const unsigned before = _mm_getcsr();
  _mm_setcsr(before | 0x8040);  // flush denormals, as code built with -ffast-math leaves it
  std::atomic<int> wrong{0};
  std::atomic<int> arrived{0};
  pool.run(2, [&](int) {
    wrong += (_mm_getcsr() & 0xe040) != 0;
    ++arrived;
    while (arrived.load() < 2) _mm_pause();
  });
  EXPECT_EQ(_mm_getcsr() & 0x8040, 0x8040u) << "the caller's own settings come back";
  _mm_setcsr(before);
  EXPECT_EQ(wrong.load(), 0);
}

TEST(ThreadPool, BindsItsThreadsToTheCpusNamed) {
  cpu_set_t before;
  CPU_ZERO(&before);
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE && cpus.size() < 2; ++cpu) {
    if (CPU_ISSET(cpu, &before)) cpus.push_back(cpu);
  }
  if (cpus.size() < 2) GTEST_SKIP() << "needs two CPUs";
  {
    ThreadPool pool(2, cpus);
    std::atomic<int> arrived{0};
    std::vector<int> ran_on(2);
    pool.run(2, [&](int task) {
      ++arrived;
      while (arrived.load() < 2) _mm_pause();
      ran_on[static_cast<std::size_t>(task)] = sched_getcpu();
    });
    EXPECT_THAT(ran_on, ::testing::UnorderedElementsAreArray(cpus));
  }
  sched_setaffinity(0, sizeof(before), &before);
}

TEST(ThreadPool, RefusesWhatItCannotDo) {
  EXPECT_THROW(ThreadPool(0), ConfigError);
  EXPECT_THROW(ThreadPool(2, {0}), ConfigError);
  EXPECT_THROW(ThreadPool(1, {-1}), ConfigError);
}

}  // namespace
}  // namespace paceline::kernels
