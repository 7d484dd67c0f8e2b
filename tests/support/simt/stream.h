#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

// Streams and events. Work is done when it is put on a stream, but for copies from pinned memory:
// those are made no sooner than the host waits for them, and what comes behind one on its stream,
// or on a stream that waits for an event behind it, waits too. So a buffer that is written again
// too early shows as wrong numbers.

struct SimtGraph {
  std::vector<std::function<void()>> kernels;
  std::shared_ptr<int> launched = std::make_shared<int>();  // and not done yet
};
struct SimtStream {
  std::unique_ptr<SimtGraph> recorded;  // while it is
  std::deque<std::function<void()>> waiting;
};
struct SimtEvent {
  SimtStream* stream = nullptr;  // it was recorded on last
  std::uint64_t recorded = 0;    // so many times
  std::uint64_t reached = 0;
};

namespace paceline::simt {

/// Does the work, or puts it behind what waits on the stream. No stream: at once.
void put(SimtStream* stream, std::function<void()> work);
/// The same, but it waits.
void put_late(SimtStream* stream, std::function<void()> work);
/// Does what waits on the stream, the first first.
void finish(SimtStream& stream);
/// The same on all streams on which this thread has put what waits.
void finish_streams();

void record(SimtEvent& event, SimtStream* stream);
/// What is put on the stream from now on comes behind the event.
void wait_for(SimtStream* stream, SimtEvent& event);
/// What waits before the event's last record is done.
void reach(SimtEvent& event);

/// Host memory that copies are late from.
void* allocate_pinned(std::size_t bytes);
/// Throws an Error unless it came from allocate_pinned and has not been freed.
void free_pinned(void* memory);
bool is_pinned(const void* memory);

}  // namespace paceline::simt
