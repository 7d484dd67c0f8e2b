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
  shares_ = std::vector<Share>(static_cast<std::size_t>(threads));
  workers_.reserve(static_cast<std::size_t>(threads) - 1);
  for (int i = 1; i < threads; ++i) {
    workers_.emplace_back(&ThreadPool::work, this, i, cpus.empty() ? -1 : cpus[i]);
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
  const auto threads = static_cast<std::uint64_t>(shares_.size());
  for (std::uint64_t i = 0; i < threads; ++i) {
    const std::uint64_t first = static_cast<std::uint64_t>(tasks) * i / threads;
    const std::uint64_t end = static_cast<std::uint64_t>(tasks) * (i + 1) / threads;
    shares_[i].untaken.store(first << 32 | end, std::memory_order_release);
  }
  job_number_.fetch_add(1, std::memory_order_release);
  job_number_.notify_all();
  take_tasks(0);
  for (std::uint32_t left; (left = unfinished_.load(std::memory_order_acquire)) != 0;) {
    await_change(unfinished_, left);
  }
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void ThreadPool::work(int thread, int cpu) {
  if (cpu >= 0) bind_this_thread(cpu);
  const FloatEnvironment environment;
  std::uint32_t seen = 0;
  while (!stop_.load(std::memory_order_relaxed)) {
    await_change(job_number_, seen);
    seen = job_number_.load(std::memory_order_acquire);
    take_tasks(thread);
  }
}

int ThreadPool::take(Share& share, bool first) {
  std::uint64_t seen = share.untaken.load(std::memory_order_acquire);
  while (true) {
    const auto begin = static_cast<std::uint32_t>(seen >> 32);
    const auto end = static_cast<std::uint32_t>(seen);
    if (begin == end) return kNone;
    const std::uint64_t rest = first ? seen + (std::uint64_t{1} << 32) : seen - 1;
    if (share.untaken.compare_exchange_weak(seen, rest, std::memory_order_acq_rel)) {
      return static_cast<int>(first ? begin : end - 1);
    }
  }
}

void ThreadPool::take_tasks(int thread) {
  const int threads = static_cast<int>(shares_.size());
  for (int i = 0; i < threads; ++i) {
    Share& share = shares_[static_cast<std::size_t>((thread + i) % threads)];
    std::uint32_t done = 0;
    for (int task; (task = take(share, i == 0)) != kNone; ++done) run_one(job_, task);
    // Once a share: the counter's cache line is what threads would wait for.
    if (done > 0 && unfinished_.fetch_sub(done, std::memory_order_acq_rel) == done) {
      unfinished_.notify_one();
    }
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
