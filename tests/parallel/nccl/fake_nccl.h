#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
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
/// is done when its turn comes on the rank's stream. As strict as NCCL where ranks must agree, in
/// what they exchange and in whether they record it, repeat it or do it at once; FatalError where
/// they do not, or do not come within a minute.
class FakeNcclNetwork {
 public:
  /// The devices' memories.
  struct Memory {
    /// Between two of them, or one and the host's.
    std::function<void(void* to, const void* from, std::size_t bytes)> copy = std::memcpy;
    std::function<void*(std::size_t bytes)> allocate = std::malloc;
    std::function<void(void*)> free = std::free;
  };
  explicit FakeNcclNetwork(int size) : FakeNcclNetwork(size, Memory()) {}
  FakeNcclNetwork(int size, Memory memory)
      : size_(size), memory_(std::move(memory)), groups_(size), registered_(size), ended_(size) {}

  /// Puts work on a rank's stream. True: it was recorded instead, to be called whenever that is
  /// repeated.
  using Put = std::function<bool(std::function<void()> work)>;
  static bool at_once(const std::function<void()>& work) {
    work();
    return false;
  }

  /// One rank's calls. The network must outlive them.
  std::unique_ptr<NcclCalls> calls(Put put = at_once);

  /// From now on this rank's device has no memory for NCCL, or NCCL does not register it.
  void refuse_memory(int rank) { without_memory_.store(rank); }
  void refuse_to_register(int rank) { without_registration_.store(rank); }
  /// Registrations of memory, of all ranks.
  int registrations() const { return registrations_.load(); }

  /// From now on this rank does not come to what its stream has to exchange.
  void stall(int rank) { stalled_.store(rank); }
  /// From now on every rank's communicator has failed with this.
  void fail(const std::string& error) {
    const std::lock_guard lock(mutex_);
    error_ = error;
  }

  int aborted() const { return aborted_.load(); }
  int destroyed() const { return destroyed_.load(); }
  /// How many groups of operations came with a recording that was repeated, of all ranks.
  int repeated() const { return repeated_.load(); }
  /// How many operations of a kind were put on streams, of all ranks.
  int operations(NcclOperation::Kind kind) {
    const std::lock_guard lock(mutex_);
    return operations_[kind];
  }

 private:
  class Rank;
  using Kind = NcclOperation::Kind;

  /// How a rank comes to a group of operations.
  enum class How { kAtOnce, kRecords, kRepeats, kRegisters };
  struct Group {
    How how = How::kAtOnce;
    std::vector<NcclOperation> operations;
  };

  // Waits until all ranks are here. False: this one's communicator was aborted, and does nothing
  // more.
  bool meet(int rank) {
    std::unique_lock lock(mutex_);
    const int round = round_;
    if (++here_ == size_) {
      here_ = 0;
      ++round_;
      wake_.notify_all();
    }
    check(wake_.wait_for(lock, std::chrono::minutes(1),
                         [&] { return round_ != round || ended_[rank]; }),
          "fake NCCL: {} of {} ranks came", here_, size_);
    return !ended_[rank];
  }
  // The same; all of them in the same way.
  bool meet(int rank, Group group) {
    if (stalled_.load() == rank) {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, std::chrono::minutes(1), [&] { return ended_[rank]; });
      return false;
    }
    groups_[rank] = std::move(group);
    if (!meet(rank)) return false;
    for (const Group& other : groups_) {
      check(other.how == groups_[rank].how,
            "fake NCCL: some ranks record, repeat or register something, and others do not");
    }
    return true;
  }

  void record(int rank, const std::vector<NcclOperation>& group) {
    if (!meet(rank, {How::kRecords, group})) return;
    for (std::size_t i = 0; i < group.size(); ++i) {
      if (group[i].kind == Kind::kSend || group[i].kind == Kind::kReceive) continue;
      for (int peer = 0; peer < size_; ++peer) only(peer, i, group[i].kind, group[i].count);
    }
    meet(rank);
  }

  /// Memory that was registered with that of the other ranks.
  struct Registered {
    const std::byte* begin = nullptr;
    std::size_t bytes = 0;
    int number = 0;
  };
  /// Where an operation's memory lies in such memory: the number of that, and how far behind its
  /// beginning; -1 if it does not.
  using Place = std::pair<int, std::ptrdiff_t>;
  Place place(int rank, const float* memory) const {
    const auto* at = reinterpret_cast<const std::byte*>(memory);
    for (const Registered& one : registered_[rank]) {
      if (at >= one.begin && at < one.begin + one.bytes) return {one.number, at - one.begin};
    }
    return {-1, 0};
  }
  // All ranks do so at the same time, and with the same number of bytes.
  void meet_to(How how, int rank, std::size_t bytes) {
    if (!meet(rank, {how, {{.count = bytes}}})) return;
    for (int peer = 0; peer < size_; ++peer) only(peer, 0, Kind::kAllGather, bytes);
    meet(rank);
  }
  // Collective operations lie at the same place of it on all ranks, or on none in any.
  void check_places(int rank, const std::vector<NcclOperation>& group) const {
    for (std::size_t i = 0; i < group.size(); ++i) {
      if (group[i].kind == Kind::kSend || group[i].kind == Kind::kReceive) continue;
      for (int peer = 0; peer < size_; ++peer) {
        check(place(peer, only(peer, i, group[i].kind, group[i].count).to) ==
                  place(rank, group[i].to),
              "fake NCCL: an operation's memory is registered otherwise on other ranks");
      }
    }
  }
  void run(int rank, const std::vector<NcclOperation>& group, How how);
  const NcclOperation& only(int rank, std::size_t index, Kind kind, std::size_t count) const {
    const std::vector<NcclOperation>& operations = groups_[rank].operations;
    check(index < operations.size(), "fake NCCL: rank {} has no operation {}", rank, index);
    const NcclOperation& operation = operations[index];
    check(operation.kind == kind && operation.count == count,
          "fake NCCL: the ranks' operations {} differ", index);
    return operation;
  }
  /// The `index`-th of the sends from one rank to another.
  const NcclOperation& find_send(int from, int to, int index) const {
    for (const NcclOperation& operation : groups_[from].operations) {
      if (operation.kind == Kind::kSend && operation.peer == to && index-- == 0) return operation;
    }
    throw FatalError("fake NCCL: nothing from {} to {} to receive", from, to);
  }
  std::vector<float> read(const float* from, std::size_t count) const {
    std::vector<float> values(count);
    memory_.copy(values.data(), from, count * sizeof(float));
    return values;
  }

  int size_;
  Memory memory_;
  std::vector<Group> groups_;  // of each rank, under way
  std::vector<std::vector<Registered>> registered_;
  std::vector<bool> ended_;  // aborted
  std::atomic<int> registrations_{0};
  std::atomic<int> without_memory_{-1}, without_registration_{-1};
  std::mutex mutex_;
  std::condition_variable wake_;
  int here_ = 0;
  int round_ = 0;
  int initialized_ = 0;
  NcclCalls::UniqueId id_ = {};
  std::string error_;
  std::map<Kind, int> operations_;
  std::atomic<int> stalled_{-1};
  std::atomic<int> repeated_{0};
  std::atomic<int> aborted_{0};
  std::atomic<int> destroyed_{0};
};

class FakeNcclNetwork::Rank final : public NcclCalls {
 public:
  Rank(FakeNcclNetwork& network, Put put) : network_(network), put_(std::move(put)) {}

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
    if (network_.ended_[rank_] || !network_.error_.empty()) return Status::kFailed;
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
    const std::vector<NcclOperation> operations(group.begin(), group.end());
    const auto recorded = std::make_shared<bool>(false);
    *recorded = put_([this, operations, recorded] {
      network_.run(rank_, operations, *recorded ? How::kRepeats : How::kAtOnce);
    });
    if (*recorded) network_.record(rank_, operations);
  }
  void* allocate(std::size_t bytes) override {
    if (network_.without_memory_.load() == rank_) return nullptr;
    void* const memory = network_.memory_.allocate(bytes);
    allocated_.push_back(memory);
    return memory;
  }
  void begin_register(void* memory, std::size_t bytes) override {
    check(std::ranges::count(allocated_, memory) == 1, "fake NCCL: memory of someone else's");
    if (network_.without_registration_.load() != rank_) {
      network_.registered_[rank_].push_back(
          {static_cast<const std::byte*>(memory), bytes, ++number_});
      ++network_.registrations_;
    }
    network_.meet_to(How::kRegisters, rank_, bytes);
    begin();
  }
  bool registered(void* memory) override {
    return network_.place(rank_, as_floats(memory)).first >= 0;
  }
  void begin_deregister(void* memory) override {
    check(registered(memory), "fake NCCL: what is not registered is taken back");
    std::erase_if(network_.registered_[rank_],
                  [&](const Registered& one) { return one.begin == memory; });
    begin();
  }
  void free(void* memory) override {
    check(!registered(memory), "fake NCCL: registered memory is freed");
    check(std::erase(allocated_, memory) == 1, "fake NCCL: memory of someone else's");
    network_.memory_.free(memory);
  }
  void begin_finalize() override {
    check(allocated_.empty(), "fake NCCL: there is memory at the communicator's end");
    begin();
  }
  void destroy() override { ++network_.destroyed_; }
  void abort() override {
    const std::lock_guard lock(network_.mutex_);
    network_.ended_[rank_] = true;
    ++network_.aborted_;
    network_.wake_.notify_all();
  }

 private:
  static const float* as_floats(const void* memory) { return static_cast<const float*>(memory); }
  void begin() {
    const std::lock_guard lock(network_.mutex_);
    looks_ = 3;
  }

  FakeNcclNetwork& network_;
  Put put_;
  int rank_ = 0;
  int looks_ = 3;
  int number_ = 0;  // of what was registered
  std::vector<void*> allocated_;
};

inline std::unique_ptr<NcclCalls> FakeNcclNetwork::calls(Put put) {
  return std::make_unique<Rank>(*this, std::move(put));
}

inline void FakeNcclNetwork::run(int rank, const std::vector<NcclOperation>& group, How how) {
  if (!meet(rank, {how, group})) return;  // else all sources are written, and known
  if (how == How::kRepeats) ++repeated_;
  check_places(rank, group);
  std::vector<int> received(size_);
  std::vector<std::vector<float>> sums;
  for (std::size_t i = 0; i < group.size(); ++i) {
    const NcclOperation& own = group[i];
    const std::size_t bytes = own.count * sizeof(float);
    if (own.kind == Kind::kReceive) {
      const NcclOperation& send = find_send(own.peer, rank, received[own.peer]++);
      check(send.count == own.count, "fake NCCL: {} sent, {} to receive", send.count, own.count);
      memory_.copy(own.to, send.from, bytes);
    }
    if (own.kind == Kind::kBroadcast && own.peer != rank) {
      memory_.copy(own.to, only(own.peer, i, own.kind, own.count).from, bytes);
      check(only(own.peer, i, own.kind, own.count).peer == own.peer, "fake NCCL: other roots");
    }
    for (int peer = 0; peer < size_ && own.kind == Kind::kAllGather; ++peer) {
      float* const to = own.to + static_cast<std::size_t>(peer) * own.count;
      const float* const from = only(peer, i, own.kind, own.count).from;
      if (to != from) memory_.copy(to, from, bytes);
    }
    if (own.kind == Kind::kAllReduce) {  // the last rank's first: no order of ours
      sums.push_back(read(only(size_ - 1, i, own.kind, own.count).from, own.count));
      for (int peer = size_ - 2; peer >= 0; --peer) {
        const std::vector<float> values = read(only(peer, i, own.kind, own.count).from, own.count);
        for (std::size_t at = 0; at < own.count; ++at) sums.back()[at] += values[at];
      }
    }
  }
  if (!meet(rank)) return;  // else all sources have been read
  for (std::size_t i = 0; i < sums.size(); ++i) {
    memory_.copy(group[i].to, sums[i].data(), sums[i].size() * sizeof(float));
  }
}

}  // namespace paceline::parallel
