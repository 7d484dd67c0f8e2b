#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <random>
#include <source_location>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/support/simt/fiber.h"

namespace paceline::simt {

/// What a kernel must not do: the message says in which block and thread, and where in the source.
class Error : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

struct Index3 {
  unsigned x = 0;
  unsigned y = 0;
  unsigned z = 0;
};

inline constexpr int kWarpLanes = 32;

/// A lane's part in a shuffle or vote: all lanes of `mask` must come to the same one.
struct WarpCall {
  const char* name = "";  // as in the source
  std::source_location where;
  unsigned mask = 0;
  std::uint64_t value = 0;  // what the others may read
  int source = 0;           // the lane whose value this one reads
  bool vote = false;
};

/// What the threads of a barrier, or the lanes of a warp call, said.
struct Votes {
  int count = 0;
  int threads = 0;
};

/// One block: its threads are fibers, of which one runs at a time, until it waits for others. Who
/// goes on next is drawn at random, from barrier to barrier in one of two ways: among all threads
/// anew each time, or so that one warp goes as far ahead of the others as it can, then the next.
class Block {
 public:
  /// `fibers`: one for each thread, idle.
  Block(Index3 dim, Index3 index, std::size_t shared_bytes,
        std::span<const std::unique_ptr<Fiber>> fibers, std::mt19937_64& random);

  /// Runs `kernel` in every thread to its end. Throws what a thread threw, or an Error when none
  /// can go on.
  void run(const std::function<void()>& kernel);

  // For the running thread.
  Votes barrier(const char* name, bool vote, std::source_location where);
  /// The value of the lane call.source, and in `ballot` the lanes that voted yes.
  std::uint64_t exchange(const WarpCall& call, unsigned& ballot);
  /// Lets others run first, now and then.
  void maybe_yield();
  int lane() const { return running_ % kWarpLanes; }
  [[noreturn]] void fail(const std::string& what, std::source_location where) const;
  std::byte* dynamic_shared();
  /// It may use what earlier kernels have written. To be called before it returns.
  void await_stream() { threads_[static_cast<std::size_t>(running_)].awaited = true; }
  void check_awaited(std::source_location where = std::source_location::current()) const;

 private:
  enum class State { kReady, kAtBarrier, kInWarpCall, kReturned };
  struct Thread {
    State state = State::kReady;
    WarpCall call;  // at a barrier: its name, place and vote
    std::uint64_t result = 0;
    unsigned ballot = 0;
    bool awaited = false;  // the stream
  };
  /// Thrown into the threads that are left when one has failed.
  struct Cancelled {};

  void body(int thread, const std::function<void()>& kernel);
  void resume(int thread);
  void suspend(State state);
  void begin_phase();
  void make_ready(int thread);
  int take_ready();
  void cancel();
  bool release_barrier();
  void complete_warp_call(int thread);
  bool in_same_call(int thread, const WarpCall& call) const;
  void check_call(const WarpCall& call) const;
  [[noreturn]] void report_stuck() const;
  std::string place(int thread) const;
  std::string doing(int thread) const;

  Index3 dim_;
  Index3 index_;
  std::span<const std::unique_ptr<Fiber>> fibers_;
  std::mt19937_64& random_;
  std::vector<Thread> threads_;
  std::vector<std::vector<int>> ready_;  // of an earlier list all run before any of a later one
  std::vector<int> list_of_warp_;        // a phase's: all the same, or each another
  // An array of exactly the launch's size, so that AddressSanitizer sees a step beyond it.
  std::unique_ptr<std::byte[]> shared_;
  Votes barrier_votes_;
  int running_ = -1;
  bool cancelled_ = false;
  std::exception_ptr error_;
};

}  // namespace paceline::simt
