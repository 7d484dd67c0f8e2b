#include "parallel/watchdog.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>

namespace paceline::parallel {
namespace {

// Three processes on one board, as mpirun would start them. What they say on standard error comes
// back in one string.
class Processes {
 public:
  Processes() : segment_(std::make_shared<SharedSegment>(Board::bytes(kCount) + kReady)) {
    if (pipe(pipe_) != 0) throw std::runtime_error("pipe");
    for (int rank = 0; rank < kCount; ++rank) pids_[rank] = fork_rank(rank);
    while (ready().load() < kCount) usleep(1000);
  }

  std::string read_all() {
    close(pipe_[1]);
    std::string text;
    char buffer[512];
    for (ssize_t got; (got = read(pipe_[0], buffer, sizeof(buffer))) > 0;) {
      text.append(buffer, static_cast<std::size_t>(got));
    }
    close(pipe_[0]);
    return text;
  }

  int exit_code(int rank) {
    int status = 0;
    waitpid(pids_[rank], &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  void signal(int rank, int number) { kill(pids_[rank], number); }
  void tell(int rank, int command) { commands()[rank].store(command); }

  static constexpr int kCount = 3;
  enum Command { kStuck, kLeave, kGiveUp };

 private:
  static constexpr std::size_t kReady = 64;
  std::atomic<int>& ready() { return commands()[kCount]; }
  std::atomic<int>* commands() {
    return reinterpret_cast<std::atomic<int>*>(segment_->bytes().data() + Board::bytes(kCount));
  }

  pid_t fork_rank(int rank) {
    const pid_t pid = fork();
    if (pid != 0) return pid;
    dup2(pipe_[1], STDERR_FILENO);
    close(pipe_[0]);
    close(pipe_[1]);
    {
      Signals signals;
      const auto board = std::make_shared<Board>(segment_, rank, kCount, rank + 4);
      board->enter("load");
      while (registered(*board) < kCount) usleep(1000);
      Watchdog watchdog(board, "node1", signals, false, [] {});
      ready().fetch_add(1);
      for (;;) {
        const int command = commands()[rank].load();
        if (command == kLeave) {
          board->sign_off();
          break;
        }
        if (command == kGiveUp) {
          if (board->claim_report()) write_line("paceline: no weights");
          board->give_up();
          _exit(7);
        }
        usleep(1000);
      }
    }
    _exit(0);
  }

  static int registered(const Board& board) {
    int count = 0;
    for (int rank = 0; rank < kCount; ++rank) count += board.entry(rank).pid != 0;
    return count;
  }

  std::shared_ptr<SharedSegment> segment_;
  int pipe_[2];
  pid_t pids_[kCount];
};

TEST(WatchdogTest, ADeathEndsTheOthersAndIsToldOnce) {
  Processes ranks;
  ranks.signal(0, SIGKILL);
  EXPECT_EQ(ranks.exit_code(0), 128 + SIGKILL);
  EXPECT_EQ(ranks.exit_code(1), kPeerDiedExit);
  EXPECT_EQ(ranks.exit_code(2), kPeerDiedExit);
  EXPECT_EQ(ranks.read_all(), "paceline: rank 4 on node1 died in load\n");
}

TEST(WatchdogTest, AZombieIsDead) {  // the parent has not asked for its exit code
  Processes ranks;
  ranks.signal(2, SIGKILL);
  EXPECT_EQ(ranks.exit_code(0), kPeerDiedExit);
  EXPECT_EQ(ranks.exit_code(1), kPeerDiedExit);
  EXPECT_EQ(ranks.read_all(), "paceline: rank 6 on node1 died in load\n");
  EXPECT_EQ(ranks.exit_code(2), 128 + SIGKILL);
}

TEST(WatchdogTest, ARankMayLeaveAfterSigningOff) {
  Processes ranks;
  for (int rank = 0; rank < Processes::kCount; ++rank) {
    ranks.tell(rank, Processes::kLeave);
    EXPECT_EQ(ranks.exit_code(rank), 0);
    usleep(150'000);  // longer than the watchdogs' period
  }
  EXPECT_EQ(ranks.read_all(), "");
}

TEST(WatchdogTest, ARankThatGaveUpTakesTheOthersAlongWithItsOwnLine) {
  Processes ranks;
  ranks.tell(1, Processes::kGiveUp);
  EXPECT_EQ(ranks.exit_code(1), 7);
  EXPECT_EQ(ranks.exit_code(0), kPeerDiedExit);
  EXPECT_EQ(ranks.exit_code(2), kPeerDiedExit);
  EXPECT_EQ(ranks.read_all(), "paceline: no weights\n");
}

TEST(WatchdogTest, SomeoneWhoInterruptsTwiceDoesNotWait) {
  Processes ranks;
  ranks.signal(1, SIGINT);
  usleep(150'000);
  ranks.signal(1, SIGINT);
  EXPECT_EQ(ranks.exit_code(1), 128 + SIGINT);
  EXPECT_EQ(ranks.exit_code(0), kPeerDiedExit);
  EXPECT_EQ(ranks.exit_code(2), kPeerDiedExit);
}

TEST(ProcessEndedTest, KnowsTheLivingTheZombiesAndTheGone) {
  const pid_t pid = fork();
  if (pid == 0) {
    pause();
    _exit(0);
  }
  EXPECT_FALSE(process_ended(pid));
  EXPECT_FALSE(process_ended(getpid()));
  kill(pid, SIGKILL);
  while (!process_ended(pid)) usleep(1000);  // a zombie
  waitpid(pid, nullptr, 0);
  EXPECT_TRUE(process_ended(pid));
}

TEST(SignalsTest, AreAQuestionInsteadOfAnEnd) {
  Signals signals;
  EXPECT_FALSE(signals.termination_requested());
  raise(SIGTERM);
  EXPECT_TRUE(signals.termination_requested());
  EXPECT_EQ(signals.last(), SIGTERM);
  EXPECT_FALSE(signals.insisted());
  raise(SIGINT);
  EXPECT_FALSE(signals.insisted());
  raise(SIGINT);
  EXPECT_TRUE(signals.insisted());
}

}  // namespace
}  // namespace paceline::parallel
