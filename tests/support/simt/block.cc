#include "tests/support/simt/block.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "tests/support/simt/include/cuda_runtime.h"

namespace paceline::simt {
namespace {

std::string at(const std::source_location& where) {
  return fmt::format("{}:{}", where.file_name(), where.line());
}

bool same_place(const std::source_location& a, const std::source_location& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         std::string_view(a.file_name()) == b.file_name();
}

}  // namespace

Block::Block(Index3 dim, Index3 index, std::size_t shared_bytes,
             std::span<const std::unique_ptr<Fiber>> fibers, std::mt19937_64& random)
    : dim_(dim), index_(index), fibers_(fibers), random_(random), threads_(fibers.size()) {
  ready_.resize((fibers.size() + kWarpLanes - 1) / kWarpLanes);
  list_of_warp_.resize(ready_.size());
  if (shared_bytes == 0) return;
  shared_.reset(new std::byte[shared_bytes]);
  // A kernel cannot rely on what it finds there.
  std::generate_n(shared_.get(), shared_bytes, [&] { return static_cast<std::byte>(random_()); });
}

void Block::run(const std::function<void()>& kernel) {
  begin_phase();
  for (int thread = 0; thread < static_cast<int>(threads_.size()); ++thread) {
    fibers_[thread]->start([this, thread, &kernel] { body(thread, kernel); });
    make_ready(thread);
  }
  try {
    do {
      for (int thread = take_ready(); thread >= 0; thread = take_ready()) {
        resume(thread);
        if (error_) std::rethrow_exception(error_);
      }
    } while (release_barrier());
  } catch (...) {
    cancel();
    throw;
  }
}

void Block::body(int thread, const std::function<void()>& kernel) {
  try {
    if (!cancelled_) kernel();
  } catch (const Cancelled&) {
  } catch (...) {
    error_ = std::current_exception();
  }
  threads_[thread].state = State::kReturned;
}

void Block::resume(int thread) {
  running_ = thread;
  const auto linear = static_cast<unsigned>(thread);
  threadIdx = {linear % dim_.x, linear / dim_.x % dim_.y, linear / dim_.x / dim_.y};
  fibers_[thread]->resume();
}

void Block::suspend(State state) {
  const int thread = running_;
  threads_[thread].state = state;
  fibers_[thread]->suspend();
  if (cancelled_) throw Cancelled();
}

void Block::make_ready(int thread) {
  threads_[thread].state = State::kReady;
  ready_[list_of_warp_[thread / kWarpLanes]].push_back(thread);
}

// -1 if none is ready.
int Block::take_ready() {
  const auto list = std::ranges::find_if(ready_, [](const auto& some) { return !some.empty(); });
  if (list == ready_.end()) return -1;
  std::swap((*list)[random_() % list->size()], list->back());
  const int thread = list->back();
  list->pop_back();
  return thread;
}

void Block::begin_phase() {
  std::iota(list_of_warp_.begin(), list_of_warp_.end(), 0);
  if (random_() % 2 == 0) {
    std::ranges::shuffle(list_of_warp_, random_);
  } else {
    std::ranges::fill(list_of_warp_, 0);
  }
}

void Block::cancel() {
  cancelled_ = true;
  for (std::size_t thread = 0; thread < threads_.size(); ++thread) {
    if (!fibers_[thread]->ended()) resume(static_cast<int>(thread));
  }
}

Votes Block::barrier(const char* name, bool vote, std::source_location where) {
  Thread& thread = threads_[running_];
  thread.call = {.name = name, .where = where, .vote = vote};
  suspend(State::kAtBarrier);
  return barrier_votes_;
}

// Called when no thread is ready. Whether there is one afterwards: not if all have returned.
bool Block::release_barrier() {
  const auto in = [&](State state) {
    return std::ranges::count(threads_, state, &Thread::state) ==
           static_cast<std::ptrdiff_t>(threads_.size());
  };
  if (in(State::kReturned)) return false;
  if (!in(State::kAtBarrier)) report_stuck();
  const int count = static_cast<int>(threads_.size());
  for (int thread = 1; thread < count; ++thread) {
    if (same_place(threads_[thread].call.where, threads_[0].call.where)) continue;
    throw Error(fmt::format("{} {}, but {} {}", place(0), doing(0), place(thread), doing(thread)));
  }
  begin_phase();
  barrier_votes_ = {.count = 0, .threads = count};
  for (int thread = 0; thread < count; ++thread) {
    barrier_votes_.count += threads_[thread].call.vote ? 1 : 0;
    make_ready(thread);
  }
  return true;
}

void Block::check_call(const WarpCall& call) const {
  const int first = running_ - lane();
  const int lanes = std::min(kWarpLanes, static_cast<int>(threads_.size()) - first);
  const unsigned existing = lanes == kWarpLanes ? ~0u : (1u << lanes) - 1;
  const auto named = [&](int l) { return (call.mask >> l & 1u) != 0; };
  if (!named(lane())) {
    fail(fmt::format("{}: the mask {:#x} leaves out lane {} itself", call.name, call.mask, lane()),
         call.where);
  }
  if ((call.mask & ~existing) != 0) {
    fail(fmt::format("{}: the mask {:#x} names lanes beyond the warp's {} threads", call.name,
                     call.mask, lanes),
         call.where);
  }
  if (!named(call.source)) {
    fail(fmt::format("{}: reads lane {}, which the mask {:#x} does not name", call.name,
                     call.source, call.mask),
         call.where);
  }
}

bool Block::in_same_call(int thread, const WarpCall& call) const {
  const WarpCall& other = threads_[thread].call;
  return threads_[thread].state == State::kInWarpCall && other.mask == call.mask &&
         same_place(other.where, call.where);
}

std::uint64_t Block::exchange(const WarpCall& call, unsigned& ballot) {
  check_call(call);
  Thread& thread = threads_[running_];
  thread.call = call;
  thread.state = State::kInWarpCall;
  complete_warp_call(running_);
  suspend(thread.state);
  ballot = thread.ballot;
  return thread.result;
}

// Hands the results out if the given thread was the last of its mask to come.
void Block::complete_warp_call(int thread) {
  const int first = thread - thread % kWarpLanes;
  const WarpCall& call = threads_[thread].call;
  unsigned ballot = 0;
  for (int l = 0; l < kWarpLanes; ++l) {
    if ((call.mask >> l & 1u) == 0) continue;
    if (!in_same_call(first + l, call)) return;
    if (threads_[first + l].call.vote) ballot |= 1u << l;
  }
  for (int l = 0; l < kWarpLanes; ++l) {
    if ((call.mask >> l & 1u) == 0) continue;
    Thread& other = threads_[first + l];
    other.result = threads_[first + other.call.source].call.value;
    other.ballot = ballot;
    make_ready(first + l);
  }
}

void Block::maybe_yield() {
  constexpr std::uint64_t kOneIn = 8;
  if (random_() % kOneIn != 0) return;
  make_ready(running_);
  suspend(State::kReady);
}

std::byte* Block::dynamic_shared() { return shared_.get(); }

std::string Block::place(int thread) const {
  const auto linear = static_cast<unsigned>(thread);
  return fmt::format("block ({}, {}, {}), thread ({}, {}, {})", index_.x, index_.y, index_.z,
                     linear % dim_.x, linear / dim_.x % dim_.y, linear / dim_.x / dim_.y);
}

std::string Block::doing(int thread) const {
  const Thread& of = threads_[thread];
  switch (of.state) {
    case State::kReturned:
      return "has returned";
    case State::kAtBarrier:
      return fmt::format("waits in {} at {}", of.call.name, at(of.call.where));
    case State::kInWarpCall:
      return fmt::format("waits in {} of the lanes {:#x} at {}", of.call.name, of.call.mask,
                         at(of.call.where));
    case State::kReady:
      break;
  }
  return "can go on";
}

void Block::fail(const std::string& what, std::source_location where) const {
  throw Error(fmt::format("{}: {} at {}", place(running_), what, at(where)));
}

void Block::check_awaited(std::source_location where) const {
  if (!threads_[static_cast<std::size_t>(running_)].awaited) {
    fail("the kernel has ended without waiting for those before it", where);
  }
}

// Names a thread that waits and the first one that it waits for in vain: for a warp call if there
// is one (which is why others do not come to a barrier), else for a barrier.
void Block::report_stuck() const {
  const int count = static_cast<int>(threads_.size());
  for (int thread = 0; thread < count; ++thread) {
    const WarpCall& call = threads_[thread].call;
    if (threads_[thread].state != State::kInWarpCall) continue;
    const int first = thread - thread % kWarpLanes;
    for (int l = 0; l < kWarpLanes; ++l) {
      if ((call.mask >> l & 1u) == 0 || in_same_call(first + l, call)) continue;
      throw Error(fmt::format("{} {}, but lane {}, {}, {}", place(thread), doing(thread), l,
                              place(first + l), doing(first + l)));
    }
  }
  const auto waits = std::ranges::find(threads_, State::kAtBarrier, &Thread::state);
  const auto returned = std::ranges::find(threads_, State::kReturned, &Thread::state);
  const int a = static_cast<int>(waits - threads_.begin());
  const int b = static_cast<int>(returned - threads_.begin());
  throw Error(fmt::format("{} {}, but {} {}", place(a), doing(a), place(b), doing(b)));
}

}  // namespace paceline::simt
