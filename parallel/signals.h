#pragma once

#include <csignal>

#include <atomic>

namespace paceline::parallel {

/// SIGTERM and SIGINT as a question that the main loop asks, instead of handlers. Construct it
/// first in main: it blocks the signals for this thread and all that are started later (MPI's too).
class Signals {
 public:
  /// Throws FatalError if the system has no signalfd.
  Signals();
  /// Lets the signals through again.
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  /// True once one of the signals has come: finish what is short, then end.
  bool termination_requested() { return last() != 0; }
  /// The last that came: 128 + it is the exit code by convention. 0 if none.
  int last();
  /// Two SIGINTs: someone at a terminal does not want to wait. Or any signal, where there is
  /// nothing to finish (end_at_once). The watchdog ends the process.
  bool insisted();
  /// From now on the first signal ends the process: it has nothing that would be lost.
  void end_at_once() { at_once_.store(true, std::memory_order_relaxed); }
  /// Becomes readable when a signal comes.
  int descriptor() const { return descriptor_; }

 private:
  void read_pending();
  sigset_t before_;
  int descriptor_ = -1;
  std::atomic<bool> at_once_{false};
  std::atomic<int> interrupts_{0};
  std::atomic<int> last_{0};
};

}  // namespace paceline::parallel
