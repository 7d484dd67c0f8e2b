#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "parallel/nccl/calls.h"

namespace paceline::parallel {

/// What stands in for NCCL and the links between GPUs: ranks are threads, and a group of operations
/// is done when `enqueue` returns, as the ops of a backend without a stream are. As strict as NCCL
/// where ranks must agree; FatalError where they do not, or do not come within a minute.
class FakeNcclNetwork {
 public:
  /// `copy` moves bytes between devices' memories, or one and the host's.
  using Copy = std::function<void(void* to, const void* from, std::size_t bytes)>;
  /// `catch_up` brings the calling rank's stream to its end.
  explicit FakeNcclNetwork(
      int size, Copy copy = std::memcpy, std::function<void()> catch_up = [] {})
      : size_(size), copy_(std::move(copy)), catch_up_(std::move(catch_up)), groups_(size) {}

  /// One rank's calls. The network must outlive them.
  std::unique_ptr<NcclCalls> calls();

  /// From now on nothing that is put on a stream gets done: a peer is stuck.
  void stall() { stalled_.store(true); }
  /// From now on every rank's communicator has failed with this.
  void fail(const std::string& error) {
    const std::lock_guard lock(mutex_);
    error_ = error;
  }

  int aborted() const { return aborted_.load(); }
  int destroyed() const { return destroyed_.load(); }
  /// How many operations of a kind were put on streams, of all ranks.
  int operations(NcclOperation::Kind kind) {
    const std::lock_guard lock(mutex_);
    return operations_[kind];
  }

 private:
  class Rank;
  using Kind = NcclOperation::Kind;

  // Waits until all ranks are here.
  void meet() {
    std::unique_lock lock(mutex_);
    const int round = round_;
    if (++here_ == size_) {
      here_ = 0;
      ++round_;
      wake_.notify_all();
    }
    check(wake_.wait_for(lock, std::chrono::minutes(1), [&] { return round_ != round; }),
          "fake NCCL: {} of {} ranks came", here_, size_);
  }

  void run(int rank, std::span<const NcclOperation> group);
  const NcclOperation& only(int rank, std::size_t index, Kind kind, std::size_t count) const {
    check(index < groups_[rank].size(), "fake NCCL: rank {} has no operation {}", rank, index);
    const NcclOperation& operation = groups_[rank][index];
    check(operation.kind == kind && operation.count == count,
          "fake NCCL: the ranks' operations {} differ", index);
    return operation;
  }
  /// The `index`-th of the sends from one rank to another.
  const NcclOperation& find_send(int from, int to, int index) const {
    for (const NcclOperation& operation : groups_[from]) {
      if (operation.kind == Kind::kSend && operation.peer == to && index-- == 0) return operation;
    }
    throw FatalError("fake NCCL: nothing from {} to {} to receive", from, to);
  }
  std::vector<float> read(const float* from, std::size_t count) const {
    std::vector<float> values(count);
    copy_(values.data(), from, count * sizeof(float));
    return values;
  }

  int size_;
  Copy copy_;
  std::function<void()> catch_up_;
  std::vector<std::vector<NcclOperation>> groups_;  // of each rank, under way
  std::mutex mutex_;
  std::condition_variable wake_;
  int here_ = 0;
  int round_ = 0;
  int initialized_ = 0;
  NcclCalls::UniqueId id_ = {};
  std::string error_;
  std::map<Kind, int> operations_;
  std::atomic<bool> stalled_{false};
  std::atomic<int> aborted_{0};
  std::atomic<int> destroyed_{0};
};

class FakeNcclNetwork::Rank final : public NcclCalls {
 public:
  explicit Rank(FakeNcclNetwork& network) : network_(network) {}

  UniqueId make_unique_id() override {
    UniqueId id;
    id.fill(std::byte{0x5a});
    const std::lock_guard lock(network_.mutex_);
    return network_.id_ = id;
  }
  void begin_init(const UniqueId& id, int size, int rank) override {
    const std::lock_guard lock(network_.mutex_);
    check(id == network_.id_ && size <= network_.size_, "fake NCCL: another communicator's id");
    rank_ = rank;
    ++network_.initialized_;
  }
  // What was begun takes a few looks, and the init until all ranks have begun it.
  Status status() override {
    const std::lock_guard lock(network_.mutex_);
    if (ended_ || !network_.error_.empty()) return Status::kFailed;
    if (network_.initialized_ < network_.size_) return Status::kInProgress;
    return looks_-- > 0 ? Status::kInProgress : Status::kReady;
  }
  std::string error() override {
    const std::lock_guard lock(network_.mutex_);
    return network_.error_;
  }
  void enqueue(std::span<const NcclOperation> group) override {
    {
      const std::lock_guard lock(network_.mutex_);
      check(looks_ <= 0, "fake NCCL: the operation before is still in progress");
      for (const NcclOperation& operation : group) ++network_.operations_[operation.kind];
      looks_ = 3;
    }
    stuck_.store(network_.stalled_.load());
    if (!stuck_.load()) network_.run(rank_, group);
  }
  void mark() override {}
  bool passed() override { return !stuck_.load() || ended_.load(); }
  void begin_finalize() override { looks_ = 3; }
  void destroy() override { ++network_.destroyed_; }
  void abort() override {
    ended_.store(true);
    ++network_.aborted_;
  }

 private:
  FakeNcclNetwork& network_;
  int rank_ = 0;
  int looks_ = 3;
  std::atomic<bool> stuck_{false};
  std::atomic<bool> ended_{false};
};

inline std::unique_ptr<NcclCalls> FakeNcclNetwork::calls() { return std::make_unique<Rank>(*this); }

inline void FakeNcclNetwork::run(int rank, std::span<const NcclOperation> group) {
  catch_up_();
  groups_[rank].assign(group.begin(), group.end());
  meet();  // all sources are written, and known
  std::vector<int> received(size_);
  std::vector<std::vector<float>> sums;
  for (std::size_t i = 0; i < group.size(); ++i) {
    const NcclOperation& own = group[i];
    const std::size_t bytes = own.count * sizeof(float);
    if (own.kind == Kind::kReceive) {
      const NcclOperation& send = find_send(own.peer, rank, received[own.peer]++);
      check(send.count == own.count, "fake NCCL: {} sent, {} to receive", send.count, own.count);
      copy_(own.to, send.from, bytes);
    }
    if (own.kind == Kind::kBroadcast && own.peer != rank) {
      copy_(own.to, only(own.peer, i, own.kind, own.count).from, bytes);
      check(only(own.peer, i, own.kind, own.count).peer == own.peer, "fake NCCL: other roots");
    }
    for (int peer = 0; peer < size_ && own.kind == Kind::kAllGather; ++peer) {
      float* const to = own.to + static_cast<std::size_t>(peer) * own.count;
      const float* const from = only(peer, i, own.kind, own.count).from;
      if (to != from) copy_(to, from, bytes);
    }
    if (own.kind == Kind::kAllReduce) {  // the last rank's first: no order of ours
      sums.push_back(read(only(size_ - 1, i, own.kind, own.count).from, own.count));
      for (int peer = size_ - 2; peer >= 0; --peer) {
        const std::vector<float> values = read(only(peer, i, own.kind, own.count).from, own.count);
        for (std::size_t at = 0; at < own.count; ++at) sums.back()[at] += values[at];
      }
    }
  }
  meet();  // all sources have been read
  for (std::size_t i = 0; i < sums.size(); ++i) {
    copy_(group[i].to, sums[i].data(), sums[i].size() * sizeof(float));
  }
}

}  // namespace paceline::parallel
