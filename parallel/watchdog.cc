#include "parallel/watchdog.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "kernels/core/error.h"

namespace paceline::parallel {

enum class Standing : std::int32_t { kAbsent, kRunning, kSignedOff, kGaveUp };

struct Board::Header {
  std::atomic<std::int32_t> reported;
};
struct Board::Row {
  std::atomic<std::int32_t> pid;
  std::atomic<std::int32_t> world_rank;
  std::atomic<Standing> standing;
  PhaseName phase;
};

std::size_t Board::bytes(int local_size) {
  return sizeof(Row) * (1 + static_cast<std::size_t>(local_size));
}

Board::Header& Board::header() const {
  return *reinterpret_cast<Header*>(segment_->bytes().data());
}

Board::Row& Board::row(int local_rank) const {
  static_assert(sizeof(Header) <= sizeof(Row));
  return reinterpret_cast<Row*>(segment_->bytes().data())[1 + local_rank];
}

Board::Board(std::shared_ptr<SharedSegment> segment, int local_rank, int local_size, int world_rank)
    : segment_(std::move(segment)), local_rank_(local_rank), local_size_(local_size) {
  check(segment_->bytes().size() >= bytes(local_size), "a board of {} bytes is too small for {}",
        segment_->bytes().size(), local_size);
  row(local_rank).pid.store(getpid());
  row(local_rank).world_rank.store(world_rank);
  row(local_rank).standing.store(Standing::kRunning);
}

void Board::enter(std::string_view phase) { row(local_rank_).phase.store(phase); }
void Board::sign_off() { row(local_rank_).standing.store(Standing::kSignedOff); }
void Board::give_up() { row(local_rank_).standing.store(Standing::kGaveUp); }
bool Board::claim_report() { return header().reported.exchange(1) == 0; }

Board::Entry Board::entry(int local_rank) const {
  const Row& from = row(local_rank);
  const Standing standing = from.standing.load();
  return {from.pid.load(), from.world_rank.load(), from.phase.load(),
          standing == Standing::kSignedOff, standing == Standing::kGaveUp};
}

/// Another process of the board and, where the system allows, a descriptor that becomes readable
/// when it ends and cannot mean a later process of the same number.
struct Watchdog::Peer {
  int local_rank = 0;
  pid_t pid = 0;
  int descriptor = -1;
  bool watched = true;

  bool ended() const {
    if (descriptor < 0) return process_ended(pid);
    pollfd ask{descriptor, POLLIN, 0};
    return poll(&ask, 1, 0) == 1;
  }
};

Watchdog::Watchdog(std::shared_ptr<Board> board, std::string host, Signals& signals,
                   bool watch_parent, std::function<void()> before_end)
    : board_(std::move(board)),
      host_(std::move(host)),
      signals_(signals),
      parent_(watch_parent ? getppid() : 0),
      before_end_(std::move(before_end)),
      wake_(eventfd(0, EFD_CLOEXEC)) {
  check(wake_ >= 0, "eventfd: {}", std::strerror(errno));
  for (int local_rank = 0; local_rank < board_->local_size(); ++local_rank) {
    if (local_rank == board_->local_rank()) continue;
    const pid_t pid = board_->entry(local_rank).pid;
    // Not glibc's function of that name: its header forgets C++ in Debian 12.
    const int descriptor = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
    peers_.push_back({local_rank, pid, descriptor, true});
  }
  thread_ = std::thread([this] { watch(); });
}

Watchdog::~Watchdog() {
  const std::uint64_t one = 1;
  if (write(wake_, &one, sizeof(one)) == sizeof(one)) thread_.join();
  for (const Peer& peer : peers_) {
    if (peer.descriptor >= 0) close(peer.descriptor);
  }
  close(wake_);
}

void Watchdog::watch() {
  std::vector<pollfd> polled;
  for (;;) {
    polled.assign(1, {wake_, POLLIN, 0});
    for (const Peer& peer : peers_) {
      if (peer.watched && peer.descriptor >= 0) polled.push_back({peer.descriptor, POLLIN, 0});
    }
    poll(polled.data(), polled.size(), static_cast<int>(kPeriod.count()));
    if (polled[0].revents != 0) return;
    check_peers();
    check_device();
    if (parent_ != 0 && getppid() != parent_) {
      report_and_end(fmt::format("paceline: the launcher of rank {} on {} died in {}",
                                 board_->entry(board_->local_rank()).world_rank, host_,
                                 board_->entry(board_->local_rank()).phase));
    }
    if (signals_.insisted()) end(128 + signals_.last());
  }
}

void Watchdog::check_peers() {
  giving_up_ = giving_up_ || board_->entry(board_->local_rank()).gave_up;
  for (Peer& peer : peers_) {
    if (!peer.watched) continue;
    const bool ended = peer.ended();  // asked before its row is read: it wrote that first
    const Board::Entry entry = board_->entry(peer.local_rank);
    giving_up_ = giving_up_ || entry.gave_up;
    if (!ended) continue;
    peer.watched = false;
    if (entry.signed_off || entry.gave_up) continue;
    report_and_end(
        fmt::format("paceline: rank {} on {} died in {}", entry.world_rank, host_, entry.phase));
  }
  const auto now = std::chrono::steady_clock::now();
  if (!giving_up_) {
    last_whole_ = now;
  } else if (now - last_whole_ > kGrace) {
    end(kPeerDiedExit);
  }
}

void Watchdog::watch_device(std::shared_ptr<const kernels::DeviceWait> wait, std::string device,
                            const RankState& state) {
  const std::lock_guard lock(device_mutex_);
  device_wait_ = std::move(wait);
  device_ = std::move(device);
  state_ = &state;
}

// A kernel that does not end cannot be ended; its process can.
void Watchdog::check_device() {
  const std::lock_guard lock(device_mutex_);
  if (device_wait_ == nullptr || giving_up_) return;
  const kernels::DeviceWait::Clock::duration waited = device_wait_->waited();
  const bool overdue = waited > state_->patience() + kDeviceGrace;
  overdue_looks_ = overdue ? overdue_looks_ + 1 : 0;
  if (overdue_looks_ < kernels::DeviceWait::kLooks) return;
  report_and_end(fmt::format("paceline: rank {} on {} has {}",
                             board_->entry(board_->local_rank()).world_rank, host_,
                             complaint(waited, device_, state_->phase())));
}

void Watchdog::report_and_end(std::string_view line) {
  if (board_->claim_report()) write_line(line);
  end(kPeerDiedExit);
}

void Watchdog::end(int code) {
  if (before_end_) before_end_();
  _exit(code);
}

bool process_ended(pid_t pid) {
  if (kill(pid, 0) != 0 && errno == ESRCH) return true;
  const int file = open(fmt::format("/proc/{}/stat", pid).c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return errno == ENOENT;
  std::array<char, 512> text;
  const ssize_t length = read(file, text.data(), text.size());
  close(file);
  // "pid (name) state ...", and the name may hold anything.
  const std::string_view stat(text.data(), length > 0 ? static_cast<std::size_t>(length) : 0);
  const std::size_t name_end = stat.rfind(')');
  if (name_end == std::string_view::npos || name_end + 2 >= stat.size()) return false;
  return stat[name_end + 2] == 'Z' || stat[name_end + 2] == 'X';
}

void write_line(std::string_view line) {
  const std::string text = fmt::format("{}\n", line);
  // Nothing can be done if standard error is closed.
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
}

}  // namespace paceline::parallel
