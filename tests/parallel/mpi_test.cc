// Real ranks under mpirun, running mpi_program.cc.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "parallel/placement.h"
#include "parallel/world.h"

namespace paceline::parallel {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using Clock = std::chrono::steady_clock;

/// An mpirun of the test program, started with its output going to a pipe.
class Job {
 public:
  Job(int ranks, const std::vector<std::string>& arguments,
      const std::vector<std::string>& mpirun_options = {}) {
    static int jobs = 0;
    mark_ = fmt::format("job-{}-{}", getpid(), jobs++);
    std::vector<std::string> words = {PACELINE_MPIRUN, "--oversubscribe", "--quiet"};
    words.insert(words.end(), mpirun_options.begin(), mpirun_options.end());
    words.insert(words.end(), {"-n", std::to_string(ranks), PACELINE_MPI_PROGRAM});
    words.insert(words.end(), arguments.begin(), arguments.end());
    words.push_back(mark_);  // ignored by the program: how its processes are found
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe");
    pid_ = fork();
    if (pid_ == 0) {
      dup2(ends[1], STDOUT_FILENO);
      dup2(ends[1], STDERR_FILENO);
      setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);  // tests run in containers
      setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
      setenv("ASAN_OPTIONS", "detect_leaks=0", 0);  // Open MPI's
      std::vector<char*> argv;
      for (std::string& word : words) argv.push_back(word.data());
      argv.push_back(nullptr);
      execv(argv[0], argv.data());
      _exit(127);
    }
    close(ends[1]);
    pipe_ = ends[0];
  }
  ~Job() {
    if (status_ < 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    close(pipe_);
  }

  /// Reads until `count` ranks have said "rank R is PID", and returns their process numbers.
  std::map<int, pid_t> wait_for_ranks(int count) {
    std::map<int, pid_t> pids;
    do {
      pids.clear();
      std::istringstream lines(output_);
      for (std::string line; std::getline(lines, line);) {
        int rank = 0;
        int pid = 0;
        if (std::sscanf(line.c_str(), "rank %d is %d", &rank, &pid) == 2) pids[rank] = pid;
      }
    } while (static_cast<int>(pids.size()) < count && read_some());
    return pids;
  }

  /// Reads to the end. Returns mpirun's exit code, -1 if it did not end in time.
  int finish(std::chrono::seconds limit = std::chrono::seconds(60)) {
    deadline_ = Clock::now() + limit;
    while (read_some()) {
    }
    while (waitpid(pid_, &status_, WNOHANG) == 0) {
      if (Clock::now() > deadline_) return status_ = -1;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_);
  }

  const std::string& output() const { return output_; }

  /// The lines that begin with "paceline:".
  std::vector<std::string> complaints() const {
    std::vector<std::string> found;
    std::istringstream lines(output_);
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with("paceline:")) found.push_back(line);
    }
    return found;
  }

  /// True when none of the job's processes is left, at the latest at the deadline of `finish`.
  bool all_gone() const {
    while (count_processes() > 0) {
      if (Clock::now() > deadline_) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return true;
  }

 private:
  bool read_some() {
    pollfd ask{pipe_, POLLIN, 0};
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline_ - Clock::now());
    if (left.count() <= 0 || poll(&ask, 1, static_cast<int>(left.count())) <= 0) return false;
    char buffer[4096];
    const ssize_t got = read(pipe_, buffer, sizeof(buffer));
    if (got <= 0) return false;
    output_.append(buffer, static_cast<std::size_t>(got));
    return true;
  }

  int count_processes() const {
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
      std::ifstream file(entry.path() / "cmdline");
      const std::string words((std::istreambuf_iterator<char>(file)), {});
      if (words.find(mark_) != std::string::npos) ++count;
    }
    return count;
  }

  std::string mark_;
  pid_t pid_ = 0;
  int pipe_ = -1;
  int status_ = -1;
  std::string output_;
  Clock::time_point deadline_ = Clock::now() + std::chrono::seconds(60);
};

class MpiTest : public ::testing::TestWithParam<int> {};

TEST_P(MpiTest, CollectivesAgreeOverAllReplicaSizesAndExchanges) {
  Job job(GetParam(), {"collectives"});
  EXPECT_EQ(job.finish(), 0) << job.output();
  EXPECT_EQ(job.output(), "ok\n");
}

TEST_P(MpiTest, MailOfAnySizeComesBack) {
  Job job(GetParam(), {"mail"});
  EXPECT_EQ(job.finish(), 0) << job.output();
  EXPECT_EQ(job.output(), "ok\n");
}

TEST_P(MpiTest, SplitLayersGiveTheBitsOfOneRank) {
  Job job(GetParam(), {"layers"});
  EXPECT_EQ(job.finish(), 0) << job.output();
  EXPECT_EQ(job.output(), "ok\n");
}

INSTANTIATE_TEST_SUITE_P(Ranks, MpiTest, ::testing::Values(1, 2, 3, 4, 8));

/// The files of Open MPI's shared memory that a process has mapped.
std::set<std::string> segment_files_of(pid_t pid) {
  std::set<std::string> files;
  std::ifstream maps(fmt::format("/proc/{}/maps", pid));
  for (std::string line; std::getline(maps, line);) {
    if (line.find("/vader_segment.") != std::string::npos)
      files.insert(line.substr(line.find('/')));
  }
  return files;
}

class ExchangeTest : public ::testing::TestWithParam<const char*> {};

TEST_P(ExchangeTest, ARankThatNeverArrivesIsNamed) {
  Job job(3, {"late", GetParam()});
  EXPECT_NE(job.finish(std::chrono::seconds(10)), 0);
  ASSERT_EQ(job.complaints().size(), 1u) << job.output();
  EXPECT_THAT(
      job.complaints()[0],
      MatchesRegex("paceline: rank [02] on .* in decode: waited 0\\.3[0-9]* s for rank 1 on "
                   "[^ ]* in decode"));
  EXPECT_TRUE(job.all_gone());
}

// The first and the last rank, while the others wait for it or are busy with something else.
TEST_P(ExchangeTest, ADeadRankTakesTheJobDownWithOneLine) {
  for (const char* mode : {"loop", "stuck"}) {
    for (const int victim : {0, 2}) {
      Job job(3, {mode, GetParam(), "prefill"});
      const auto pids = job.wait_for_ranks(3);
      ASSERT_EQ(pids.size(), 3u) << job.output();
      const std::set<std::string> files = segment_files_of(pids.at(victim));
      kill(pids.at(victim), SIGKILL);
      EXPECT_GT(job.finish(std::chrono::seconds(10)), 0);
      ASSERT_EQ(job.complaints().size(), 1u) << job.output();
      EXPECT_THAT(job.complaints()[0],
                  MatchesRegex(fmt::format("paceline: rank {} on [^ ]* died in prefill", victim)));
      EXPECT_TRUE(job.all_gone());
      for (const std::string& file : files) EXPECT_FALSE(std::filesystem::exists(file)) << file;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, ExchangeTest, ::testing::Values("shared", "mpi"));

TEST(AbortTest, ARankThatThrowsEndsAllWithItsLine) {
  Job job(3, {"throw"});
  EXPECT_GT(job.finish(std::chrono::seconds(10)), 0);
  ASSERT_EQ(job.complaints().size(), 1u) << job.output();
  EXPECT_THAT(job.complaints()[0],
              MatchesRegex("paceline: rank 2 on [^ ]* in load: the weights are gone"));
  EXPECT_TRUE(job.all_gone());
}

TEST(SplitTest, TellsWhichReplicaSizesFit) {
  Job job(6, {"split", "4"});
  EXPECT_EQ(job.finish(), 2);
  EXPECT_THAT(job.output(), HasSubstr("--tp 4: 6 ranks cannot be cut into replicas of 4; "
                                      "use 1, 2, 3 or 6"));
}

TEST(WorldTest, RanksOfANodeShareAllOfItsCpusWhateverMpirunBound) {
  const std::size_t cpus = allowed_cpus().size();
  for (const char* binding : {"core", "none"}) {
    Job job(2, {"places"}, {"--bind-to", binding, "--map-by", "slot"});
    EXPECT_EQ(job.finish(), 0) << job.output();
    EXPECT_THAT(job.output(), HasSubstr(fmt::format("rank 0 of {} CPUs: ", cpus)));
    EXPECT_THAT(job.output(), HasSubstr(fmt::format("rank 1 of {} CPUs: ", cpus)));
  }
}

TEST(WorldTest, NeedsNoMpirun) {
  const std::string command = std::string(PACELINE_MPI_PROGRAM) + " collectives";
  setenv("ASAN_OPTIONS", "detect_leaks=0", 0);  // Open MPI's
  EXPECT_EQ(system(command.c_str()), 0);
}

}  // namespace
}  // namespace paceline::parallel
