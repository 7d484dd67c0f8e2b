#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "kernels/core/function_ref.h"

namespace paceline::kernels {

/// Threads that live as long as the pool and share out the tasks of one call at a time. Nothing is
/// allocated after construction. Results must not depend on which thread runs a task.
class ThreadPool {
 public:
  /// `threads` counts the caller of `run`; at least 1. If `cpus` is not empty it names the CPU
  /// that each thread is bound to, the constructing thread first; it needs one entry a thread.
  /// Throws ConfigError if that cannot be done.
  explicit ThreadPool(int threads, const std::vector<int>& cpus = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Calls task(0) ... task(tasks - 1), each once, on the caller and the workers, in the standard
  /// float environment, and returns when all are done. The first exception that a task throws is
  /// rethrown once none is running any more (tasks not yet begun may be left out). One caller at a
  /// time; tasks must not call `run`.
  void run(int tasks, FunctionRef<void(int)> task);

 private:
  struct Job {
    const FunctionRef<void(int)>* task = nullptr;
    int tasks = 0;
  };

  // Tasks [first, end) of the current job that nobody has taken: first in the high half, end in the
  // low. Whoever takes one knows that job_ stays as it is until that task is finished.
  struct alignas(64) Share {
    std::atomic<std::uint64_t> untaken{0};
  };
  static constexpr int kNone = -1;

  void work(int thread, int cpu);
  // Runs tasks of the current job until none is left to take: those of the thread's own share in
  // their order, so that neighbours are read one after the other, then others' from their ends.
  void take_tasks(int thread);
  static int take(Share& share, bool first);
  void run_one(const Job& job, int index);
  // Waits for `value` to change from `old`: spins for a while, then sleeps.
  void await_change(const std::atomic<std::uint32_t>& value, std::uint32_t old) const;

  std::chrono::nanoseconds spin_time_{0};
  Job job_;
  std::vector<Share> shares_;  // of each thread, the caller first
  alignas(64) std::atomic<std::uint32_t> unfinished_{0};
  alignas(64) std::atomic<std::uint32_t> job_number_{0};
  std::atomic<bool> stop_{false};
  std::mutex failure_mutex_;
  std::exception_ptr failure_;
  std::vector<std::thread> workers_;
};

}  // namespace paceline::kernels
