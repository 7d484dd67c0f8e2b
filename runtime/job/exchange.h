#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "parallel/world.h"
#include "runtime/job/replica.h"
#include "runtime/job/work.h"

namespace paceline::runtime {

/// What rank 0 knows of a replica's work.
struct ReplicaReport {
  std::int64_t generated_tokens = 0;
  std::int64_t running = 0;
  EngineStats stats;  // complete once the replica is done
  bool done = false;
  RunEnd end = RunEnd::kDone;
};

/// Rank 0's side of the work that replicas pull: hands out requests, takes results in. Its own
/// replica calls it directly, the leaders of the others by messages that `serve` answers.
class WorkServer {
 public:
  /// `next(n)` gives up to n requests, fewer only when there are no more; `complete` takes a
  /// result.
  struct Callbacks {
    std::function<std::vector<WorkItem>(std::size_t)> next;
    std::function<bool()> exhausted;
    std::function<void(WorkResult)> complete;
  };
  /// `leaders` are the world ranks of the replicas' leaders, rank 0 first.
  WorkServer(parallel::World& world, std::vector<int> leaders, Callbacks callbacks);

  std::vector<WorkItem> next(std::size_t wanted) { return callbacks_.next(wanted); }
  bool exhausted() const { return callbacks_.exhausted(); }
  void complete(WorkResult result) { callbacks_.complete(std::move(result)); }

  /// Answers the messages that have come. Throws FatalError naming a leader that has said nothing
  /// for longer than the patience of a wait.
  void serve();
  /// Serves until every replica but this rank's own is done; calls `meanwhile` now and then.
  void serve_to_end(const std::function<void()>& meanwhile);

  /// Of each replica, its own first.
  std::vector<ReplicaReport>& reports() { return reports_; }

 private:
  void receive(int replica, std::span<const std::byte> bytes);
  bool others_done() const;

  parallel::World& world_;
  std::vector<int> leaders_;
  Callbacks callbacks_;
  std::vector<ReplicaReport> reports_;
  std::vector<std::chrono::steady_clock::time_point> heard_;
};

/// The work of rank 0's own replica.
class LocalWork : public WorkSource {
 public:
  LocalWork(WorkServer& server, const Engine& engine, std::function<void()> on_step)
      : server_(server), engine_(engine), on_step_(std::move(on_step)) {}
  std::vector<WorkItem> take(std::size_t wanted) override { return server_.next(wanted); }
  bool exhausted() const override { return server_.exhausted(); }
  void report(WorkResult result) override { server_.complete(std::move(result)); }
  void serve() override;

 private:
  WorkServer& server_;
  const Engine& engine_;
  std::function<void()> on_step_;
};

/// The work of any other replica, pulled from rank 0 ahead of need.
class RemoteWork : public WorkSource {
 public:
  RemoteWork(parallel::World& world, const Engine& engine) : world_(world), engine_(engine) {}
  std::vector<WorkItem> take(std::size_t wanted) override;
  bool exhausted() const override { return exhausted_ && ready_.empty(); }
  void report(WorkResult result) override;
  void serve() override;
  /// The last message: everything is reported.
  void finish(RunEnd end);

 private:
  parallel::World& world_;
  const Engine& engine_;
  std::vector<WorkItem> ready_;
  bool asked_ = false;
  bool exhausted_ = false;
  std::chrono::steady_clock::time_point told_;
};

}  // namespace paceline::runtime
