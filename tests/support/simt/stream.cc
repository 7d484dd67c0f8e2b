#include "tests/support/simt/stream.h"

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "tests/support/simt/block.h"
#include "tests/support/simt/memory.h"

namespace paceline::simt {
namespace {

struct Streams {
  std::mutex mutex;
  std::map<SimtStream*, std::thread::id> late;  // streams with waiting work, and who put it there
  std::map<const std::byte*, std::pair<std::size_t, std::unique_ptr<std::byte[]>>> pinned;
};

// Buffers may be freed while the program ends, so it is never destroyed.
Streams& streams() {
  static Streams& the_streams = *new Streams;
  return the_streams;
}

void do_first(SimtStream& stream) {
  const std::function<void()> work = std::move(stream.waiting.front());
  stream.waiting.pop_front();
  if (stream.waiting.empty()) {
    const std::lock_guard lock(streams().mutex);
    streams().late.erase(&stream);
  }
  work();
}

// Opening and closing the device's memory for each kernel anew would take longer than the kernels.
void reach(SimtEvent& event, std::uint64_t record) {
  if (event.reached >= record) return;
  const HostAccess access;
  while (event.reached < record) do_first(*event.stream);
}

}  // namespace

void put(SimtStream* stream, std::function<void()> work) {
  if (stream != nullptr && !stream->waiting.empty()) return put_late(stream, std::move(work));
  work();
}

void put_late(SimtStream* stream, std::function<void()> work) {
  if (stream == nullptr) return work();
  stream->waiting.push_back(std::move(work));
  const std::lock_guard lock(streams().mutex);
  streams().late[stream] = std::this_thread::get_id();
}

void finish(SimtStream& stream) {
  if (stream.waiting.empty()) return;
  const HostAccess access;
  while (!stream.waiting.empty()) do_first(stream);
}

void finish_streams() {
  std::vector<SimtStream*> own;
  {
    const std::lock_guard lock(streams().mutex);
    for (const auto& [stream, thread] : streams().late) {
      if (thread == std::this_thread::get_id()) own.push_back(stream);
    }
  }
  for (SimtStream* stream : own) finish(*stream);
}

void record(SimtEvent& event, SimtStream* stream) {
  event.stream = stream;
  put(stream, [&event, record = ++event.recorded] { event.reached = record; });
}

void wait_for(SimtStream* stream, SimtEvent& event) {
  if (event.reached == event.recorded) return;
  put_late(stream, [&event, record = event.recorded] { reach(event, record); });
}

void reach(SimtEvent& event) { reach(event, event.recorded); }

void* allocate_pinned(std::size_t bytes) {
  auto memory = std::make_unique<std::byte[]>(bytes);
  std::byte* begin = memory.get();
  const std::lock_guard lock(streams().mutex);
  streams().pinned[begin] = {bytes, std::move(memory)};
  return begin;
}

void free_pinned(void* memory) {
  const std::lock_guard lock(streams().mutex);
  if (streams().pinned.erase(static_cast<std::byte*>(memory)) == 0) {
    throw Error("pinned memory is freed that is not in use");
  }
}

bool is_pinned(const void* memory) {
  const auto* at = static_cast<const std::byte*>(memory);
  const std::lock_guard lock(streams().mutex);
  const auto next = streams().pinned.upper_bound(at);
  if (next == streams().pinned.begin()) return false;
  const auto& [begin, block] = *std::prev(next);
  return at < begin + block.first;
}

}  // namespace paceline::simt
