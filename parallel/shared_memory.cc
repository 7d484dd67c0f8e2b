#include "parallel/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <random>
#include <system_error>

#include "kernels/core/error.h"

namespace paceline::parallel {
namespace {

constexpr std::size_t kLine = 128;  // two cache lines: the hardware fetches them in pairs

std::size_t round_up(std::size_t bytes) { return (bytes + kLine - 1) / kLine * kLine; }

[[noreturn]] void fail(const char* what, int error = errno) {
  throw std::system_error(error, std::generic_category(), what);
}

}  // namespace

SharedSegment::SharedSegment(std::size_t bytes) {
  descriptor_ = memfd_create("paceline", MFD_CLOEXEC);
  if (descriptor_ < 0) fail("memfd_create");
  // Reserved now, because running out later would be a SIGBUS.
  const int error = posix_fallocate(descriptor_, 0, static_cast<off_t>(bytes));
  if (error != 0) {
    close_descriptor();
    fail("shared memory", error);
  }
  map(bytes);
}

SharedSegment::SharedSegment(pid_t owner, int descriptor, std::size_t bytes) {
  const std::string path = fmt::format("/proc/{}/fd/{}", owner, descriptor);
  descriptor_ = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (descriptor_ < 0) fail(path.c_str());
  if (lseek(descriptor_, 0, SEEK_END) != static_cast<off_t>(bytes)) {
    close_descriptor();
    fail(path.c_str(), EINVAL);
  }
  map(bytes);
}

SharedSegment::~SharedSegment() {
  if (!bytes_.empty()) munmap(bytes_.data(), bytes_.size());
  close_descriptor();
}

void SharedSegment::map(std::size_t bytes) {
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor_, 0);
  if (address == MAP_FAILED) {
    const int error = errno;
    close_descriptor();
    fail("mmap", error);
  }
  bytes_ = {static_cast<std::byte*>(address), bytes};
}

void SharedSegment::close_descriptor() {
  if (descriptor_ >= 0) close(descriptor_);
  descriptor_ = -1;
}

std::shared_ptr<SharedSegment> share_segment(Communicator& group, std::size_t bytes) {
  struct Ticket {
    std::int64_t owner = 0;
    std::int64_t descriptor = -1;
    std::uint64_t stamp = 0;  // tells this segment from another process's with the same numbers
  };
  const std::size_t stamp_at = round_up(bytes);
  const std::size_t total = stamp_at + sizeof(Ticket::stamp);
  std::shared_ptr<SharedSegment> segment;
  Ticket ticket;
  if (group.rank() == 0) {
    try {
      segment = std::make_shared<SharedSegment>(total);
      std::random_device random;
      ticket = {getpid(), segment->descriptor(), (std::uint64_t{random()} << 32) | random()};
      std::memcpy(segment->bytes().data() + stamp_at, &ticket.stamp, sizeof(ticket.stamp));
    } catch (const std::system_error&) {  // told below: descriptor -1
    }
  }
  group.broadcast(std::as_writable_bytes(std::span(&ticket, 1)), 0);
  if (group.rank() != 0 && ticket.descriptor >= 0) {
    try {
      segment = std::make_shared<SharedSegment>(static_cast<pid_t>(ticket.owner),
                                                static_cast<int>(ticket.descriptor), total);
      std::uint64_t stamp = 0;
      std::memcpy(&stamp, segment->bytes().data() + stamp_at, sizeof(stamp));
      if (stamp != ticket.stamp) segment = nullptr;
    } catch (const std::system_error&) {  // told below
    }
  }
  const std::byte mapped{segment != nullptr};
  std::vector<std::byte> all_mapped(group.size());
  group.all_gather({&mapped, 1}, all_mapped, std::vector<std::size_t>(group.size(), 1));
  if (std::ranges::count(all_mapped, std::byte{0}) > 0) return nullptr;
  segment->close_descriptor();
  return segment;
}

namespace {

/// How many steps of the group a rank has published; alone in its cache lines.
struct alignas(kLine) Counter {
  std::atomic<std::uint64_t> published;
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

/// Every operation is a sequence of steps k = 1, 2, ... in which each rank may show up to a chunk
/// of bytes to all: it writes them to its slot k % 2, publishes k, waits until every other rank has
/// published k, and copies what it needs. Two slots are enough: a rank writes for k + 2 only after
/// all have published k + 1, which each does only when it is done reading k.
class SharedGroup final : public Communicator {
 public:
  SharedGroup(std::shared_ptr<SharedSegment> segment, int rank, MemberNames names,
              const RankState& state, std::size_t chunk)
      : segment_(std::move(segment)),
        names_(std::move(names)),
        state_(state),
        rank_(rank),
        chunk_(chunk),
        counters_(reinterpret_cast<Counter*>(segment_->bytes().data())),
        slots_(segment_->bytes().data() + names_.size() * sizeof(Counter)) {
    check(
        0 <= rank && rank < size() && segment_->bytes().size() >= shared_group_bytes(size(), chunk),
        "a shared segment of {} bytes is too small for {} ranks", segment_->bytes().size(), size());
  }

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(names_.size()); }
  std::string_view exchange() const override { return "shared memory"; }

  void all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                  std::span<const std::size_t> sizes) override {
    const std::size_t place = check_gather(*this, mine, all, sizes);
    const std::size_t longest = *std::ranges::max_element(sizes);
    for (std::size_t done = 0; done == 0 || done < longest; done += chunk_) {
      publish(piece(mine, done));
      std::size_t begin = place + sizes[rank_];
      for (int step = 1; step < size(); ++step) {  // the next rank first, so as not to crowd one
        const int peer = (rank_ + step) % size();
        if (peer == 0) begin = 0;
        await(peer);
        copy_from(peer, piece(all.subspan(begin, sizes[peer]), done));
        begin += sizes[peer];
      }
    }
    if (mine.data() != all.data() + place && !mine.empty()) {
      std::memcpy(all.data() + place, mine.data(), mine.size());
    }
  }

  void gather_slices(std::span<const std::byte> mine, std::span<std::byte> out,
                     std::span<const std::int64_t> rows,
                     std::span<const std::size_t> slices) override {
    const std::size_t row_bytes = check_slices(*this, mine, out, rows, slices);
    const std::size_t longest = static_cast<std::size_t>(*std::ranges::max_element(rows)) *
                                *std::ranges::max_element(slices);
    // A slot has room for a piece for each rank. It is never smaller than kLine.
    check(size() <= static_cast<int>(kLine), "{} ranks are too many for a slot", size());
    const std::size_t room = std::max<std::size_t>(1, chunk_ / names_.size());
    for (std::size_t done = 0; done == 0 || done < longest; done += room) {
      ++step_;
      for (int peer = 0; peer < size(); ++peer) {
        const std::size_t bytes = rows[rank_] * slices[peer];
        if (peer == rank_ || done >= bytes) continue;
        slice_of(mine, row_bytes, slices, peer)
            .copy(done, {slot(rank_) + peer * room, std::min(room, bytes - done)});
      }
      publish_step();
      std::span<std::byte> to = out;
      for (int peer = 0; peer < size(); ++peer) {
        const std::size_t bytes = rows[peer] * slices[rank_];
        if (peer != rank_) {
          await(peer);
          if (done < bytes) {
            std::memcpy(to.data() + done, slot(peer) + rank_ * room, std::min(room, bytes - done));
          }
        } else if (done == 0) {
          slice_of(mine, row_bytes, slices, peer).copy(0, to.first(bytes));
        }
        to = to.subspan(bytes);
      }
    }
  }

  void broadcast(std::span<std::byte> data, int root) override {
    check(0 <= root && root < size(), "broadcast: no rank {} among {}", root, size());
    for (std::size_t done = 0; done == 0 || done < data.size(); done += chunk_) {
      publish(rank_ == root ? piece<std::byte>(data, done) : std::span<std::byte>());
      for (int peer = 0; peer < size(); ++peer) await(peer);
      if (rank_ != root) copy_from(root, piece(data, done));
    }
  }

  void barrier() override {
    publish({});
    for (int peer = 0; peer < size(); ++peer) await(peer);
  }

 private:
  template <typename Byte>
  std::span<Byte> piece(std::span<Byte> block, std::size_t done) const {
    if (done >= block.size()) return {};
    return block.subspan(done, std::min(chunk_, block.size() - done));
  }

  std::byte* slot(int peer) const {
    return slots_ + (static_cast<std::size_t>(peer) * 2 + step_ % 2) * round_up(chunk_);
  }

  void publish(std::span<const std::byte> bytes) {
    ++step_;
    if (!bytes.empty()) std::memcpy(slot(rank_), bytes.data(), bytes.size());
    publish_step();
  }

  void publish_step() { counters_[rank_].published.store(step_, std::memory_order_release); }

  bool arrived(int peer) const {
    return counters_[peer].published.load(std::memory_order_acquire) >= step_;
  }

  void await(int peer) {
    if (arrived(peer)) return;
    Wait wait(state_);
    while (!arrived(peer)) {
      if (wait.rest()) continue;
      std::vector<bool> missing(size());
      for (int other = 0; other < size(); ++other) missing[other] = !arrived(other);
      if (!missing[peer]) return;
      throw FatalError("{}", wait.complaint(join_names(names_, missing)));
    }
  }

  void copy_from(int peer, std::span<std::byte> to) const {
    if (!to.empty()) std::memcpy(to.data(), slot(peer), to.size());
  }

  std::shared_ptr<SharedSegment> segment_;
  MemberNames names_;
  const RankState& state_;
  int rank_;
  std::size_t chunk_;
  Counter* counters_;
  std::byte* slots_;
  std::uint64_t step_ = 0;
};

}  // namespace

std::size_t shared_group_bytes(int size, std::size_t chunk) {
  return static_cast<std::size_t>(size) * (sizeof(Counter) + 2 * round_up(chunk));
}

std::unique_ptr<Communicator> make_shared_group(std::shared_ptr<SharedSegment> segment, int rank,
                                                MemberNames names, const RankState& state,
                                                std::size_t chunk) {
  return std::make_unique<SharedGroup>(std::move(segment), rank, std::move(names), state, chunk);
}

}  // namespace paceline::parallel
