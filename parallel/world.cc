#include "parallel/world.h"

#include <mpi.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>

#include "parallel/mpi_checks.h"
#include "parallel/mpi_group.h"
#include "parallel/placement.h"
#include "parallel/shared_memory.h"
#include "parallel/watchdog.h"

namespace paceline::parallel {
namespace {

constexpr int kMostCpus = 4096;

/// What a rank tells all others at the start. Plain bytes: they travel as they are.
struct Introduction {
  std::array<char, 64> host = {};
  std::array<char, 96> node = {};  // equal for ranks that see each other's processes
  std::array<std::uint8_t, kMostCpus / 8> cpus = {};
};

template <std::size_t N>
void copy_text(std::string_view text, std::array<char, N>& to) {
  std::memcpy(to.data(), text.data(), std::min(text.size(), N - 1));
}

/// The running kernel and the process namespace: what makes process numbers comparable.
std::string node_identity(std::string_view host) {
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  struct stat space {};
  if (boot.empty() || stat("/proc/self/ns/pid", &space) != 0) return std::string(host);
  return fmt::format("{} {}", boot, space.st_ino);
}

Introduction introduce() {
  Introduction mine;
  check(gethostname(mine.host.data(), mine.host.size() - 1) == 0, "this machine has no name");
  copy_text(node_identity(mine.host.data()), mine.node);
  for (const int cpu : allowed_cpus()) {
    if (cpu < kMostCpus) mine.cpus[cpu / 8] |= static_cast<std::uint8_t>(1u << (cpu % 8));
  }
  return mine;
}

std::vector<int> union_of_cpus(const std::vector<Introduction>& ranks,
                               const std::vector<int>& members) {
  std::vector<int> cpus;
  for (int cpu = 0; cpu < kMostCpus; ++cpu) {
    if (std::ranges::any_of(
            members, [&](int rank) { return (ranks[rank].cpus[cpu / 8] >> (cpu % 8) & 1) != 0; })) {
      cpus.push_back(cpu);
    }
  }
  return cpus;
}

/// Removes the shared memory files that Open MPI mapped into this process, its own and its peers':
/// a rank that ends without MPI_Finalize leaves them in /dev/shm, megabytes each, for good.
void remove_segment_files() {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    const std::size_t path = line.find('/');
    if (path == std::string::npos || line.ends_with(" (deleted)")) continue;
    if (line.find("/vader_segment.") != std::string::npos) unlink(line.c_str() + path);
  }
}

/// "1, 2, 4 or 8"
std::string divisors_of(int size) {
  std::vector<int> divisors;
  for (int d = 1; d <= size; ++d) {
    if (size % d == 0) divisors.push_back(d);
  }
  std::string text;
  for (std::size_t i = 0; i < divisors.size(); ++i) {
    if (i > 0) text += i + 1 < divisors.size() ? ", " : " or ";
    text += std::to_string(divisors[i]);
  }
  return text;
}

}  // namespace

struct World::State {
  RankState rank_state;
  int rank = 0;
  std::vector<Introduction> ranks;  // by world rank
  std::vector<int> node_ranks;      // world ranks on this node, ascending
  int local_rank = 0;
  std::string host;
  std::vector<int> node_cpus;
  std::unique_ptr<Communicator> all;
  std::shared_ptr<Board> board;
  std::unique_ptr<Watchdog> watchdog;
  std::unique_ptr<Mailbox> mailbox;
  int exceptions_at_start = std::uncaught_exceptions();

  explicit State(Signals& signals) {
    start_mpi();
    meet();
    watch(signals);
    mailbox = std::make_unique<Mailbox>(rank_state);
  }

  void start_mpi() {
    // Settings that a program passes to Open MPI this way; the user's own, if any, stay. Without a
    // launcher it would start a daemon for us, which we would never use, and keep a folder of one
    // name for all such processes of a user, which they remove under each other's feet.
    if (std::getenv("PMIX_RANK") == nullptr) {
      setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);
      setenv("OMPI_MCA_orte_create_session_dirs", "0", 0);
    }
    int provided = 0;
    check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
    check(provided >= MPI_THREAD_FUNNELED, "this MPI cannot be used by a program with threads");
    check_mpi(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI error handler");
    check_mpi(MPI_Comm_rank(MPI_COMM_WORLD, &rank), "MPI_Comm_rank");
  }

  void meet() {
    rank_state.enter("start");
    int size = 0;
    check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &size), "MPI_Comm_size");
    ranks.resize(size);
    ranks[rank] = introduce();
    host = ranks[rank].host.data();
    std::vector<int> everyone(size);
    for (int r = 0; r < size; ++r) everyone[r] = r;
    MemberNames numbers;
    for (int r = 0; r < size; ++r) numbers.push_back(fmt::format("rank {}", r));
    const std::span<std::byte> all_bytes = std::as_writable_bytes(std::span(ranks));
    make_mpi_group(everyone, rank, numbers, rank_state)
        ->all_gather(all_bytes.subspan(rank * sizeof(Introduction), sizeof(Introduction)),
                     all_bytes, std::vector<std::size_t>(size, sizeof(Introduction)));
    all = mpi_group(everyone);
    for (int r = 0; r < size; ++r) {
      if (ranks[r].node != ranks[rank].node) continue;
      if (r == rank) local_rank = static_cast<int>(node_ranks.size());
      node_ranks.push_back(r);
    }
    node_cpus = union_of_cpus(ranks, node_ranks);
    rank_state.set_crowded(node_ranks.size() > node_cpus.size());
  }

  void watch(Signals& signals) {
    const auto node = mpi_group(node_ranks);
    std::shared_ptr<SharedSegment> segment = share_segment(*node, Board::bytes(node->size()));
    if (segment != nullptr) {
      board = std::make_shared<Board>(segment, local_rank, node->size(), rank);
    } else {  // processes that cannot see each other's memory: each watches its launcher
      segment = std::make_shared<SharedSegment>(Board::bytes(1));
      board = std::make_shared<Board>(segment, 0, 1, rank);
    }
    board->enter("start");
    node->barrier();
    watchdog =
        std::make_unique<Watchdog>(board, host, signals, ranks.size() > 1, remove_segment_files);
    node->barrier();
  }

  std::string name(int r) const { return fmt::format("rank {} on {}", r, ranks.at(r).host.data()); }

  /// The ranks of this one's replica, if replicas have `tp`.
  MemberNames replica_names(int tp) const {
    MemberNames names;
    for (int r = rank / tp * tp; r < rank / tp * tp + tp; ++r) names.push_back(name(r));
    return names;
  }

  // Any thread: from here on the watchdogs end all ranks if nothing else does.
  void give_up(std::string_view message) {
    if (board->claim_report()) {
      write_line(fmt::format("paceline: {} in {}: {}", name(rank), rank_state.phase(), message));
    }
    board->give_up();
  }

  std::unique_ptr<Communicator> mpi_group(const std::vector<int>& members) const {
    MemberNames names;
    int self = -1;
    for (std::size_t i = 0; i < members.size(); ++i) {
      names.push_back(name(members[i]));
      if (members[i] == rank) self = static_cast<int>(i);
    }
    return make_mpi_group(members, self, std::move(names), rank_state);
  }
};

Exchange parse_exchange(std::string_view name) {
  if (name == "auto") return Exchange::kAuto;
  if (name == "shared") return Exchange::kShared;
  if (name == "mpi") return Exchange::kMpi;
  if (name == "nccl") return Exchange::kNccl;
  throw ConfigError("exchange \"{}\": expected auto, shared, mpi or nccl", name);
}

std::string mpi_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  check_mpi(MPI_Get_library_version(text, &length), "MPI_Get_library_version");
  // Open MPI goes on with ", package: ...", MPICH with lines about its build.
  const std::string_view whole(text, static_cast<std::size_t>(length));
  return std::string(whole.substr(0, whole.find_first_of(",\n")));
}

World::World(Signals& signals) : state_(std::make_unique<State>(signals)) {}

World::~World() {
  if (std::uncaught_exceptions() > state_->exceptions_at_start) abort(1, "ended by an exception");
  try {
    enter("end");  // with the usual patience, whatever the last phase had
    state_->mailbox->flush();
  } catch (const FatalError& error) {
    abort(1, error.what());
  }
  state_->board->sign_off();
  MPI_Finalize();
}

int World::rank() const { return state_->rank; }
int World::size() const { return static_cast<int>(state_->ranks.size()); }
const std::string& World::host() const { return state_->host; }
int World::local_rank() const { return state_->local_rank; }
int World::local_size() const { return static_cast<int>(state_->node_ranks.size()); }
const std::vector<int>& World::node_cpus() const { return state_->node_cpus; }
std::string World::name(int rank) const { return state_->name(rank); }
Communicator& World::all() { return *state_->all; }
Mailbox& World::mailbox() { return *state_->mailbox; }

void World::enter(std::string_view phase, std::chrono::milliseconds patience) {
  state_->rank_state.enter(phase, patience);
  state_->board->enter(phase);
}

void World::set_crowded(bool crowded) { state_->rank_state.set_crowded(crowded); }

std::unique_ptr<Communicator> World::split_replicas(int tp, Exchange exchange) {
  if (tp < 1 || size() % tp != 0) {
    throw ConfigError("--tp {}: {} ranks cannot be cut into replicas of {}; use {}", tp, size(), tp,
                      divisors_of(size()));
  }
  if (tp == 1) return make_single();
  const int first = rank() / tp * tp;
  std::vector<int> members;
  bool one_node = true;
  for (int r = first; r < first + tp; ++r) {
    members.push_back(r);
    one_node = one_node && state_->ranks[r].node == state_->ranks[first].node;
  }
  auto by_messages = state_->mpi_group(members);
  if (exchange == Exchange::kMpi) return by_messages;
  if (one_node) {
    if (auto segment = share_segment(*by_messages, shared_group_bytes(tp))) {
      return make_shared_group(std::move(segment), rank() - first, state_->replica_names(tp),
                               state_->rank_state);
    }
  }
  if (exchange == Exchange::kShared) {
    throw ConfigError("--exchange shared: ranks {} to {} {}", first, first + tp - 1,
                      one_node ? "cannot map each other's memory" : "are not on one node");
  }
  return by_messages;
}

void World::watch_device(const kernels::Backend& backend) {
  const auto stream = backend.native_stream();
  if (!stream) return;
  state_->watchdog->watch_device(stream->wait, fmt::format("GPU {}", stream->device),
                                 state_->rank_state);
}

std::string World::nccl_obstacle(Communicator& replica, const kernels::Backend& backend) const {
  const auto stream = backend.native_stream();
  return parallel::nccl_obstacle(replica, state_->replica_names(replica.size()),
                                 stream ? &*stream : nullptr);
}

std::unique_ptr<Communicator> World::connect_devices(std::unique_ptr<Communicator> replica,
                                                     const kernels::Backend& backend,
                                                     AllReduce all_reduce) {
  const auto stream = backend.native_stream();
  check(stream.has_value(), "{} has no stream for NCCL", name(rank()));
  const int size = replica->size();
  return make_nccl_group({.host = std::move(replica),
                          .names = state_->replica_names(size),
                          .state = state_->rank_state,
                          .wait = stream->wait,
                          .end_job = [this](std::string_view why) { state_->give_up(why); }},
                         make_nccl_calls(*stream), all_reduce);
}

void World::abort(int code, std::string_view message) {
  state_->give_up(message);
  remove_segment_files();
  MPI_Abort(MPI_COMM_WORLD, code);
  _exit(code);
}

}  // namespace paceline::parallel
