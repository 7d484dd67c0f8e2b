#include "runtime/job/exchange.h"

#include <algorithm>
#include <thread>

#include "kernels/core/error.h"
#include "runtime/engine/wire.h"

namespace paceline::runtime {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kToServer = 1;
constexpr int kToReplica = 2;
constexpr auto kProgressPeriod = std::chrono::seconds(1);

enum class MessageKind : std::uint8_t { kWant, kResult, kProgress, kDone };

template <typename T>
std::vector<std::byte> message(MessageKind kind, const T& plain) {
  WireWriter writer;
  writer.value(kind);
  writer.value(plain);
  return writer.take();
}

struct Progress {
  std::int64_t generated_tokens = 0;
  std::int64_t running = 0;
};

Progress progress_of(const Engine& engine) {
  return {engine.stats().sampled_tokens, static_cast<std::int64_t>(engine.scheduler().running())};
}

struct Done {
  EngineStats stats;
  RunEnd end = RunEnd::kDone;
};

}  // namespace

WorkServer::WorkServer(parallel::World& world, std::vector<int> leaders, Callbacks callbacks)
    : world_(world),
      leaders_(std::move(leaders)),
      callbacks_(std::move(callbacks)),
      reports_(leaders_.size()),
      heard_(leaders_.size(), Clock::now()) {}

void WorkServer::receive(int replica, std::span<const std::byte> bytes) {
  const auto index = static_cast<std::size_t>(replica);
  ReplicaReport& report = reports_[index];
  heard_[index] = Clock::now();
  WireReader reader(bytes);
  switch (reader.value<MessageKind>()) {
    case MessageKind::kWant: {
      const std::vector<WorkItem> items = next(reader.value<std::uint64_t>());
      WireWriter reply;
      reply.value(exhausted());
      encode_work(items, reply);
      world_.mailbox().send(leaders_[index], kToReplica, reply.take());
      break;
    }
    case MessageKind::kResult:
      complete(decode_result(reader));
      break;
    case MessageKind::kProgress: {
      const auto progress = reader.value<Progress>();
      report.generated_tokens = progress.generated_tokens;
      report.running = progress.running;
      break;
    }
    case MessageKind::kDone: {
      const auto done = reader.value<Done>();
      report.stats = done.stats;
      report.end = done.end;
      report.generated_tokens = done.stats.sampled_tokens;
      report.running = 0;
      report.done = true;
      break;
    }
  }
  reader.done();
}

bool WorkServer::others_done() const {
  return std::all_of(reports_.begin() + 1, reports_.end(),
                     [](const ReplicaReport& report) { return report.done; });
}

void WorkServer::serve() {
  if (leaders_.size() == 1) return;
  while (auto message = world_.mailbox().try_receive(kToServer)) {
    const auto leader = std::find(leaders_.begin(), leaders_.end(), message->source);
    check(leader != leaders_.end(), "{} sent a message but leads no replica",
          world_.name(message->source));
    receive(static_cast<int>(leader - leaders_.begin()), message->bytes);
  }
  for (std::size_t replica = 1; replica < leaders_.size(); ++replica) {
    check(reports_[replica].done || Clock::now() - heard_[replica] < parallel::kPatience,
          "waited {} s for word from {}, leader of replica {}",
          std::chrono::duration_cast<std::chrono::seconds>(parallel::kPatience).count(),
          world_.name(leaders_[replica]), replica);
  }
}

void WorkServer::serve_to_end(const std::function<void()>& meanwhile) {
  while (!others_done()) {
    serve();
    meanwhile();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

void LocalWork::serve() {
  server_.serve();
  const Progress progress = progress_of(engine_);
  ReplicaReport& report = server_.reports().front();
  report.generated_tokens = progress.generated_tokens;
  report.running = progress.running;
  on_step_();
}

std::vector<WorkItem> RemoteWork::take(std::size_t wanted) {
  // Asks when half of what it wants is missing, so that one message brings several requests.
  if (!asked_ && !exhausted_ && ready_.size() * 2 < wanted) {
    world_.mailbox().send(0, kToServer,
                          message(MessageKind::kWant, static_cast<std::uint64_t>(wanted)));
    asked_ = true;
  }
  while (auto reply = world_.mailbox().try_receive(kToReplica)) {
    WireReader reader(reply->bytes);
    exhausted_ = reader.value<bool>();
    for (WorkItem& item : decode_work(reader)) ready_.push_back(std::move(item));
    reader.done();
    asked_ = false;
  }
  const auto count = static_cast<std::ptrdiff_t>(std::min(wanted, ready_.size()));
  std::vector<WorkItem> taken(std::make_move_iterator(ready_.begin()),
                              std::make_move_iterator(ready_.begin() + count));
  ready_.erase(ready_.begin(), ready_.begin() + count);
  return taken;
}

void RemoteWork::report(WorkResult result) {
  WireWriter writer;
  writer.value(MessageKind::kResult);
  encode_result(result, writer);
  world_.mailbox().send(0, kToServer, writer.take());
}

void RemoteWork::serve() {
  if (Clock::now() - told_ < kProgressPeriod) return;
  told_ = Clock::now();
  world_.mailbox().send(0, kToServer, message(MessageKind::kProgress, progress_of(engine_)));
}

void RemoteWork::finish(RunEnd end) {
  // Rank 0's answer to the last request for work has to be received, wanted or not.
  for (const auto start = Clock::now(); asked_ && Clock::now() - start < parallel::kPatience;) {
    take(0);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  world_.mailbox().send(0, kToServer, message(MessageKind::kDone, Done{engine_.stats(), end}));
  world_.mailbox().flush();
}

}  // namespace paceline::runtime
