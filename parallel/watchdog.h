#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "kernels/core/device_wait.h"
#include "parallel/rank_state.h"
#include "parallel/shared_memory.h"
#include "parallel/signals.h"

namespace paceline::parallel {

/// Where the ranks of one node write, in memory that they share, who they are and what they do, so
/// that the survivors can say what a dead one did.
class Board {
 public:
  static std::size_t bytes(int local_size);
  /// `segment` is zeroed, of at least bytes(local_size). Registers this process.
  Board(std::shared_ptr<SharedSegment> segment, int local_rank, int local_size, int world_rank);

  void enter(std::string_view phase);
  /// This process ends of its own will; its end is no death.
  void sign_off();
  /// This process will end the job with a message of its own.
  void give_up();
  /// True for the first caller on the node: the one line that says why the job ends is its to
  /// print.
  bool claim_report();

  struct Entry {
    pid_t pid = 0;
    int world_rank = 0;
    std::string phase;
    bool signed_off = false;
    bool gave_up = false;
  };
  Entry entry(int local_rank) const;
  int local_rank() const { return local_rank_; }
  int local_size() const { return local_size_; }

 private:
  struct Row;
  struct Header;
  Header& header() const;
  Row& row(int local_rank) const;
  std::shared_ptr<SharedSegment> segment_;
  int local_rank_;
  int local_size_;
};

/// Exit code of a rank that ends because another died.
inline constexpr int kPeerDiedExit = 1;

/// A thread that ends this process, whatever its other threads are stuck in, when
/// - a process of the board is gone without having signed off: the first to notice prints
///   `paceline: rank R on HOST died in PHASE`;
/// - one gave up and the launcher has not ended this process `kGrace` later;
/// - it has waited for its device for longer than the phase's patience (watch_device):
///   `paceline: rank R on HOST has waited 120 s for GPU 0 in PHASE`;
/// - the launcher (the parent process) is gone, if `watch_parent`;
/// - the user insists (Signals).
/// All processes of the board must have registered before, and construct this before any ends.
class Watchdog {
 public:
  /// `before_end` runs in the watchdog's thread before it ends the process.
  Watchdog(std::shared_ptr<Board> board, std::string host, Signals& signals, bool watch_parent,
           std::function<void()> before_end);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// From now on the process' waits for this device ("GPU 0") have the patience of `state`, which
  /// must outlive the watchdog.
  void watch_device(std::shared_ptr<const kernels::DeviceWait> wait, std::string device,
                    const RankState& state);

  static constexpr std::chrono::milliseconds kPeriod{100};
  /// Who knows which other ranks the device waits for (NcclMonitor) speaks first.
  static constexpr std::chrono::milliseconds kDeviceGrace{1000};
  static constexpr std::chrono::milliseconds kGrace{3000};

 private:
  struct Peer;
  void watch();
  void check_peers();
  void check_device();
  [[noreturn]] void end(int code);
  [[noreturn]] void report_and_end(std::string_view line);

  std::shared_ptr<Board> board_;
  std::string host_;
  Signals& signals_;
  pid_t parent_;  // 0: not watched
  std::function<void()> before_end_;
  std::vector<Peer> peers_;
  int wake_ = -1;           // an eventfd: the destructor's call
  bool giving_up_ = false;  // this process or a peer has
  std::mutex device_mutex_;
  std::shared_ptr<const kernels::DeviceWait> device_wait_;  // none: not watched
  std::string device_;
  const RankState* state_ = nullptr;
  int overdue_looks_ = 0;  // one after the other
  std::chrono::steady_clock::time_point last_whole_ = std::chrono::steady_clock::now();
  std::thread thread_;
};

/// True if the process is gone or a zombie.
bool process_ended(pid_t pid);

/// Writes one line to standard error in one piece, so that lines of several processes stay whole.
void write_line(std::string_view line);

}  // namespace paceline::parallel
