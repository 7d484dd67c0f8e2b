#include "kernels/core/thread_pool.h"

#include <immintrin.h>
#include <sched.h>

#include "kernels/core/error.h"
#include "kernels/core/float_environment.h"

namespace paceline::kernels {

namespace {

// Ops follow each other within microseconds while a step runs; waking a sleeper takes about 50.
constexpr std::chrono::microseconds kSpinTime{50};

int allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) {
    return static_cast<int>(std::thread::hardware_concurrency());
  }
  return CPU_COUNT(&set);
}

bool bind_this_thread(int cpu) {
  if (cpu < 0 || cpu >= CPU_SETSIZE) return false;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  return sched_setaffinity(0, sizeof(set), &set) == 0;
}

// Tries every CPU in turn; ends on the first, or where it began if one cannot be had.
void bind_caller(const std::vector<int>& cpus) {
  cpu_set_t before;
  CPU_ZERO(&before);
  sched_getaffinity(0, sizeof(before), &before);
  for (int cpu : cpus) {
    if (bind_this_thread(cpu)) continue;
    sched_setaffinity(0, sizeof(before), &before);
    throw ConfigError("cannot bind a thread to CPU {}", cpu);
  }
  if (!cpus.empty()) bind_this_thread(cpus[0]);
}

}  // namespace

ThreadPool::ThreadPool(int threads, const std::vector<int>& cpus) {
  if (threads < 1) throw ConfigError("threads is {}, expected at least 1", threads);
  if (!cpus.empty() && cpus.size() != static_cast<std::size_t>(threads)) {
    throw ConfigError("{} CPUs named for {} threads, expected one each", cpus.size(), threads);
  }
  // A spinning thread must not keep one with work to do off its core.
  if (!cpus.empty() || threads <= allowed_cpus()) spin_time_ = kSpinTime;
  bind_caller(cpus);
  workers_.reserve(static_cast<std::size_t>(threads) - 1);
  for (int i = 1; i < threads; ++i) {
    workers_.emplace_back(&ThreadPool::work, this, cpus.empty() ? -1 : cpus[i]);
  }
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  job_number_.fetch_add(1, std::memory_order_release);
  job_number_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(int tasks, FunctionRef<void(int)> task) {
  if (tasks <= 0) return;
  const FloatEnvironment environment;
  if (tasks == 1 || workers_.empty()) {
    for (int i = 0; i < tasks; ++i) task(i);
    return;
  }
  job_ = {&task, tasks};
  unfinished_.store(static_cast<std::uint32_t>(tasks), std::memory_order_relaxed);
  const std::uint32_t number = job_number_.load(std::memory_order_relaxed) + 1;
  untaken_.store(std::uint64_t{number} << 32 | static_cast<std::uint32_t>(tasks),
                 std::memory_order_release);
  job_number_.store(number, std::memory_order_release);
  job_number_.notify_all();
  take_tasks();
  for (std::uint32_t left; (left = unfinished_.load(std::memory_order_acquire)) != 0;) {
    await_change(unfinished_, left);
  }
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void ThreadPool::work(int cpu) {
  if (cpu >= 0) bind_this_thread(cpu);
  const FloatEnvironment environment;
  std::uint32_t seen = 0;
  while (!stop_.load(std::memory_order_relaxed)) {
    await_change(job_number_, seen);
    seen = job_number_.load(std::memory_order_acquire);
    take_tasks();
  }
}

void ThreadPool::take_tasks() {
  std::uint64_t seen = untaken_.load(std::memory_order_acquire);
  while (static_cast<std::uint32_t>(seen) != 0) {
    if (!untaken_.compare_exchange_weak(seen, seen - 1, std::memory_order_acquire)) continue;
    run_one(job_, job_.tasks - static_cast<int>(static_cast<std::uint32_t>(seen)));
    if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished_.notify_one();
    seen = untaken_.load(std::memory_order_acquire);
  }
}

void ThreadPool::run_one(const Job& job, int index) {
  try {
    (*job.task)(index);
  } catch (...) {
    const std::lock_guard lock(failure_mutex_);
    if (!failure_) failure_ = std::current_exception();
  }
}

void ThreadPool::await_change(const std::atomic<std::uint32_t>& value, std::uint32_t old) const {
  if (spin_time_.count() > 0) {
    const auto deadline = std::chrono::steady_clock::now() + spin_time_;
    do {
      for (int i = 0; i < 32; ++i) {
        if (value.load(std::memory_order_acquire) != old) return;
        _mm_pause();
      }
    } while (std::chrono::steady_clock::now() < deadline);
  }
  value.wait(old, std::memory_order_acquire);
}

}  // namespace paceline::kernels
