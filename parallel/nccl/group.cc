#include "parallel/nccl/group.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <exception>
#include <mutex>
#include <numeric>
#include <vector>

#include "kernels/core/error.h"
#include "parallel/nccl/monitor.h"

namespace paceline::parallel {
namespace {

/// What a rank tells the others of its device. Plain bytes: they travel as they are.
struct DeviceTicket {
  std::array<char, 64> device_id = {};  // empty: none
  std::array<char, 128> missing = {};   // why it has no NCCL; empty: it has
};

template <std::size_t N>
void copy_text(std::string_view text, std::array<char, N>& to) {
  std::memcpy(to.data(), text.data(), std::min(text.size(), N - 1));
}

class NcclGroup final : public Communicator, private DeviceExchange {
 public:
  NcclGroup(NcclMembers members, std::unique_ptr<NcclCalls> calls, AllReduce all_reduce)
      : members_(std::move(members)), calls_(std::move(calls)), all_reduce_(all_reduce) {
    check(members_.names.size() == static_cast<std::size_t>(size()), "{} names for {} ranks",
          members_.names.size(), size());
    std::vector<bool> others(members_.names.size(), true);
    others[rank()] = false;
    others_ = join_names(members_.names, others);
    try {
      connect();
    } catch (const FatalError& error) {
      members_.end_job(error.what());
      throw;
    }
    monitor_ = std::make_unique<NcclMonitor>(
        *calls_, *members_.wait, members_.state,
        [this] { return "an exchange by NCCL with " + others_; },
        [this](const std::string& trouble) { fail(trouble); });
  }

  // While an exception ends the job nothing may wait here, for NCCL neither.
  ~NcclGroup() override {
    monitor_ = nullptr;
    if (failed_.load() || std::uncaught_exceptions() > exceptions_at_start_) return;
    try {
      calls_->begin_finalize();
      settle("the end of NCCL's communicator with ");
      calls_->destroy();
    } catch (const FatalError& error) {
      members_.end_job(error.what());
    }
  }

  int rank() const override { return members_.host->rank(); }
  int size() const override { return members_.host->size(); }
  std::string_view exchange() const override { return "NCCL"; }
  DeviceExchange* device() override { return this; }

  void all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                  std::span<const std::size_t> sizes) override {
    by_host([&](Communicator& host) { host.all_gather(mine, all, sizes); });
  }
  void gather_slices(std::span<const std::byte> mine, std::span<std::byte> out,
                     std::span<const std::int64_t> rows,
                     std::span<const std::size_t> slices) override {
    by_host([&](Communicator& host) { host.gather_slices(mine, out, rows, slices); });
  }
  void broadcast(std::span<std::byte> data, int root) override {
    by_host([&](Communicator& host) { host.broadcast(data, root); });
  }
  void barrier() override {
    by_host([](Communicator& host) { host.barrier(); });
  }

 private:
  using Kind = NcclOperation::Kind;

  // Blocks of different sizes are a group of broadcasts, NCCL's own advice for them: nothing is
  // padded, and no block is copied to where it belongs.
  void all_gather(float* all, std::span<const std::size_t> counts) override {
    check(counts.size() == static_cast<std::size_t>(size()), "all_gather: {} counts for {} ranks",
          counts.size(), size());
    const bool equal = std::ranges::count(counts, counts[0]) == size();
    operations_.clear();
    if (equal) {
      const std::size_t place = counts[0] * static_cast<std::size_t>(rank());
      add({.kind = Kind::kAllGather, .from = all + place, .to = all, .count = counts[0]});
    }
    for (int root = 0; root < size() && !equal; ++root) {
      add({.kind = Kind::kBroadcast, .from = all, .to = all, .count = counts[root], .peer = root});
      all += counts[root];
    }
    run();
  }

  // A rank sends to itself too, which NCCL does with a copy.
  void gather_slices(const float* mine, float* out, std::span<const std::int64_t> rows,
                     std::span<const std::size_t> slices) override {
    const std::size_t row = std::reduce(slices.begin(), slices.end());
    operations_.clear();
    for (int peer = 0; peer < size(); ++peer) {
      for (std::int64_t r = 0; r < rows[rank()]; ++r) {
        add({.kind = Kind::kSend, .from = mine + r * row, .count = slices[peer], .peer = peer});
      }
      mine += slices[peer];
      const std::size_t received = rows[peer] * slices[rank()];
      for (std::int64_t r = 0; r < rows[peer]; ++r) {
        add({.kind = Kind::kReceive,
             .to = out + r * slices[rank()],
             .count = slices[rank()],
             .peer = peer});
      }
      out += received;
    }
    run();
  }

  void all_reduce(float* sum, std::size_t count) override {
    operations_.clear();
    add({.kind = Kind::kAllReduce, .from = sum, .to = sum, .count = count});
    run();
  }

  bool reduces() const override { return all_reduce_ == AllReduce::kNccl; }

  // NCCL wants registered memory from all ranks or from none. Why it takes none its own log says
  // (NCCL_DEBUG=INFO).
  kernels::Buffer allocate(std::size_t bytes) override {
    throw_if_failed();
    if (bytes == 0) return {};
    try {
      void* memory = nullptr;
      {
        const kernels::DeviceWait::Scope waiting(*members_.wait);
        memory = calls_->allocate(bytes);
      }
      if (!everywhere(memory != nullptr)) {
        if (memory != nullptr) calls_->free(memory);
        return {};
      }
      kernels::Buffer buffer(memory, bytes, [this](void* freed) { release(freed); });
      calls_->begin_register(memory, bytes);
      settle("memory that NCCL registers with ");
      if (!everywhere(calls_->registered(memory))) deregister(memory);
      return buffer;
    } catch (const FatalError& error) {
      throw_if_failed();
      members_.end_job(error.what());
      throw;
    }
  }

  bool everywhere(bool here) {
    std::vector<std::byte> all(static_cast<std::size_t>(size()));
    const std::byte mine{here};
    members_.host->all_gather({&mine, 1}, all, std::vector<std::size_t>(all.size(), 1));
    return std::ranges::count(all, std::byte{0}) == 0;
  }

  void deregister(void* memory) {
    if (!calls_->registered(memory)) return;
    calls_->begin_deregister(memory);
    settle("memory that NCCL releases with ");
  }

  // As at the group's own end.
  void release(void* memory) {
    if (failed_.load() || std::uncaught_exceptions() > exceptions_at_start_) return;
    try {
      const kernels::DeviceWait::Scope waiting(*members_.wait);
      deregister(memory);
      calls_->free(memory);
    } catch (const FatalError& error) {
      members_.end_job(error.what());
    }
  }

  // ---- the communicator

  void connect() {
    struct Ticket {
      NcclCalls::UniqueId id = {};
      std::array<char, 256> failure = {};
    } ticket;
    if (rank() == 0) {
      try {
        ticket.id = calls_->make_unique_id();
      } catch (const FatalError& error) {
        copy_text(error.what(), ticket.failure);
      }
    }
    members_.host->broadcast(std::as_writable_bytes(std::span(&ticket, 1)), 0);
    ticket.failure.back() = '\0';
    check(ticket.failure[0] == '\0', "{}: {}", members_.names[0], ticket.failure.data());
    calls_->begin_init(ticket.id, size(), rank());
    settle("NCCL's communicator with ");
  }

  /// Waits until what was begun has been taken over by NCCL or the device: not for its end.
  void settle(const char* what) {
    Wait wait(members_.state);
    for (;;) {
      const NcclCalls::Status status = calls_->status();
      if (status == NcclCalls::Status::kReady) return;
      if (status == NcclCalls::Status::kFailed) throw FatalError("{}", calls_->error());
      if (!wait.rest()) throw FatalError("{}", wait.complaint(what + others_));
    }
  }

  void add(const NcclOperation& operation) {
    if (operation.count > 0) operations_.push_back(operation);
  }

  void run() {
    throw_if_failed();
    if (operations_.empty()) return;
    try {
      {
        const kernels::DeviceWait::Scope waiting(*members_.wait);
        calls_->enqueue(operations_);
      }
      settle("an exchange by NCCL with ");
    } catch (const FatalError& error) {
      throw_if_failed();
      members_.end_job(error.what());  // what is on the stream may keep memory from being freed
      throw;
    }
  }

  // ---- failures

  /// In the monitor's thread. The job ends even if NCCL never comes back from the abort.
  void fail(const std::string& trouble) {
    {
      const std::lock_guard lock(failure_mutex_);
      failure_ = trouble;
    }
    failed_.store(true);
    members_.end_job(trouble);
    calls_->abort();
  }

  void throw_if_failed() {
    if (!failed_.load()) return;
    const std::lock_guard lock(failure_mutex_);
    throw FatalError("{}", failure_);
  }

  // After an abort the stream goes on with what happens to be in memory. Ranks agree by way of the
  // host before anything leaves them (runtime/engine/agreement.h), so it stops here.
  template <typename Operation>
  void by_host(const Operation& operation) {
    throw_if_failed();
    try {
      operation(*members_.host);
    } catch (const FatalError& error) {
      members_.end_job(error.what());  // who unwinds may wait for a stream that waits for that rank
      throw;
    }
    throw_if_failed();
  }

  NcclMembers members_;
  std::unique_ptr<NcclCalls> calls_;
  AllReduce all_reduce_;
  std::string others_;  // names of the other ranks
  std::vector<NcclOperation> operations_;
  std::atomic<bool> failed_{false};
  std::mutex failure_mutex_;
  std::string failure_;
  int exceptions_at_start_ = std::uncaught_exceptions();
  std::unique_ptr<NcclMonitor> monitor_;
};

}  // namespace

AllReduce parse_all_reduce(std::string_view name) {
  if (name == "canonical") return AllReduce::kCanonical;
  if (name == "nccl") return AllReduce::kNccl;
  throw ConfigError("all-reduce \"{}\": expected canonical or nccl", name);
}

std::string nccl_obstacle(Communicator& group, const MemberNames& names,
                          const kernels::NativeStream* stream) {
  std::vector<DeviceTicket> tickets(group.size());
  DeviceTicket& own = tickets[group.rank()];
  if (stream != nullptr) copy_text(stream->device_id, own.device_id);
  copy_text(nccl_missing(), own.missing);
  const DeviceTicket mine = own;
  group.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(tickets)),
                   std::vector<std::size_t>(tickets.size(), sizeof(DeviceTicket)));
  const auto text = [](const auto& chars) { return std::string(chars.data()); };
  for (std::size_t r = 0; r < tickets.size(); ++r) {
    if (tickets[r].missing[0] != '\0') return text(tickets[r].missing);
  }
  for (std::size_t r = 0; r < tickets.size(); ++r) {
    if (tickets[r].device_id[0] == '\0') {
      return fmt::format("{} computes on the CPU, expected a GPU (--device cuda)", names[r]);
    }
    for (std::size_t before = 0; before < r; ++before) {
      if (tickets[before].device_id != tickets[r].device_id) continue;
      return fmt::format("{} and {} share {}, expected a GPU for each", names[before], names[r],
                         text(tickets[r].device_id));
    }
  }
  return "";
}

std::unique_ptr<Communicator> make_nccl_group(NcclMembers members, std::unique_ptr<NcclCalls> calls,
                                              AllReduce all_reduce) {
  return std::make_unique<NcclGroup>(std::move(members), std::move(calls), all_reduce);
}

}  // namespace paceline::parallel
