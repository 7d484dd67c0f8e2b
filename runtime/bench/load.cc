#include "runtime/bench/load.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "kernels/core/error.h"
#include "runtime/engine/wire.h"

namespace paceline::runtime {
namespace {

class LoadRun {
 public:
  LoadRun(Engine& engine, const Workload& workload) : engine_(engine), workload_(workload) {
    record_.requests.resize(workload.items.size());
  }

  LoadRecord run() {
    while (finished_ < workload_.items.size()) {
      const Control control = admit();
      if (engine_.idle() && control.admit.empty()) wait_for_arrival();
      step(control);
    }
    record_.seconds = seconds();
    Control last;
    last.stop = true;
    engine_.step(last);
    return std::move(record_);
  }

 private:
  using Clock = std::chrono::steady_clock;

  double seconds() const { return std::chrono::duration<double>(Clock::now() - begin_).count(); }

  // An idle leader still steps now and then: the others wait for its word, with a deadline.
  void wait_for_arrival() const {
    constexpr double kIdleStep = 1;
    const double left = workload_.items[sent_].arrival - seconds();
    std::this_thread::sleep_for(std::chrono::duration<double>(std::clamp(left, 0.0, kIdleStep)));
  }

  Control admit() {
    Control control;
    const double now = seconds();
    for (; sent_ < workload_.items.size(); ++sent_) {
      const Workload::Item& item = workload_.items[sent_];
      const auto in_flight = static_cast<std::int64_t>(sent_ - finished_);
      if (workload_.open ? item.arrival > now : in_flight == workload_.concurrency) break;
      RequestRecord& record = record_.requests[sent_];
      record.task = item.task;
      record.prompt_tokens = static_cast<std::int32_t>(item.request.prompt.size());
      record.sent = workload_.open ? item.arrival : now;
      control.admit.push_back(item.request);
    }
    return control;
  }

  void step(const Control& control) {
    const EngineStats before = engine_.stats();
    const double begin = seconds();
    const std::vector<TokenEvent> events = engine_.step(control);
    const double end = seconds();
    const EngineStats after = engine_.stats();
    if (after.steps > before.steps) {
      record_.steps.push_back(
          {.seconds = end - begin,
           .forward = after.time.forward - before.time.forward,
           .context_rows = static_cast<std::int32_t>(after.context_rows - before.context_rows),
           .generation_rows =
               static_cast<std::int32_t>(after.generation_rows - before.generation_rows)});
    }
    for (std::size_t i = 0; i < events.size(); ++i) {
      RequestRecord& record = record_.requests.at(events[i].uid);
      if (i == 0 || events[i - 1].uid != events[i].uid) record.chunks.push_back(end);
      record.new_tokens += events[i].token >= 0 ? 1 : 0;
      record.failed |= events[i].end == EndReason::kNonFinite;
      finished_ += events[i].end != EndReason::kNone ? 1 : 0;
    }
  }

  Engine& engine_;
  const Workload& workload_;
  LoadRecord record_;
  std::size_t sent_ = 0;
  std::size_t finished_ = 0;
  Clock::time_point begin_ = Clock::now();
};

}  // namespace

LoadRecord run_load(Engine& engine, const Workload& workload) {
  check(workload.items.empty() || workload.concurrency > 0, "a load of {} requests at once",
        workload.concurrency);
  return LoadRun(engine, workload).run();
}

std::vector<std::byte> encode_load(const LoadRecord& record) {
  WireWriter writer;
  writer.value(static_cast<std::uint64_t>(record.requests.size()));
  for (const RequestRecord& request : record.requests) {
    writer.value(request.task);
    writer.value(request.prompt_tokens);
    writer.value(request.new_tokens);
    writer.value(request.failed);
    writer.value(request.sent);
    writer.list(request.chunks);
  }
  writer.list(record.steps);
  writer.value(record.seconds);
  return writer.take();
}

LoadRecord decode_load(std::span<const std::byte> bytes) {
  WireReader reader(bytes);
  LoadRecord record;
  record.requests.resize(reader.value<std::uint64_t>());
  for (RequestRecord& request : record.requests) {
    request.task = reader.value<std::int32_t>();
    request.prompt_tokens = reader.value<std::int32_t>();
    request.new_tokens = reader.value<std::int32_t>();
    request.failed = reader.value<bool>();
    request.sent = reader.value<double>();
    request.chunks = reader.list<double>();
  }
  record.steps = reader.list<StepRecord>();
  record.seconds = reader.value<double>();
  reader.done();
  return record;
}

}  // namespace paceline::runtime
