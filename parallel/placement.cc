#include "parallel/placement.h"

#include <fmt/format.h>
#include <hwloc.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <memory>
#include <set>

#include "kernels/core/error.h"

namespace paceline::parallel {
namespace {

constexpr int kMostCpus = 4096;

/// A sched.h CPU mask with room for large machines.
class CpuMask {
 public:
  CpuMask() : set_(CPU_ALLOC(kMostCpus)) { CPU_ZERO_S(bytes(), set_); }
  ~CpuMask() { CPU_FREE(set_); }
  CpuMask(const CpuMask&) = delete;
  CpuMask& operator=(const CpuMask&) = delete;

  bool read_from(pid_t pid) { return sched_getaffinity(pid, bytes(), set_) == 0; }
  bool apply() const { return sched_setaffinity(0, bytes(), set_) == 0; }
  void add(int cpu) {
    if (cpu >= 0 && cpu < kMostCpus) CPU_SET_S(static_cast<std::size_t>(cpu), bytes(), set_);
  }
  std::vector<int> cpus() const {
    std::vector<int> list;
    for (std::size_t cpu = 0; cpu < kMostCpus; ++cpu) {
      if (CPU_ISSET_S(cpu, bytes(), set_)) list.push_back(static_cast<int>(cpu));
    }
    return list;
  }

 private:
  static std::size_t bytes() { return CPU_ALLOC_SIZE(kMostCpus); }
  cpu_set_t* set_;
};

struct ProcessStat {
  std::string name;
  pid_t parent = 0;
};

ProcessStat read_stat(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string line;
  std::getline(file, line);
  // "pid (name) state parent ...", and the name may hold anything.
  const std::size_t open = line.find('(');
  const std::size_t close = line.rfind(')');
  if (open == std::string::npos || close == std::string::npos || close < open) return {};
  ProcessStat stat{line.substr(open + 1, close - open - 1), 0};
  if (close + 4 < line.size()) stat.parent = std::atoi(line.c_str() + close + 4);
  return stat;
}

/// Open MPI's launchers bind each rank, themselves they are not bound. 0 if there is none above.
pid_t find_launcher() {
  constexpr std::array<std::string_view, 8> kNames = {
      "mpirun", "mpiexec", "orterun", "orted", "prterun", "prted", "prte", "mpirun.openmpi"};
  pid_t pid = getppid();
  for (int depth = 0; depth < 16 && pid > 1; ++depth) {
    const ProcessStat stat = read_stat(pid);
    if (std::ranges::count(kNames, stat.name) > 0) return pid;
    pid = stat.parent;
  }
  return 0;
}

/// "0-3,8"
std::string list_ranges(std::vector<int> numbers) {
  std::ranges::sort(numbers);
  std::string text;
  for (std::size_t i = 0; i < numbers.size();) {
    std::size_t last = i;
    while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
    if (!text.empty()) text += ',';
    text +=
        last == i ? fmt::format("{}", numbers[i]) : fmt::format("{}-{}", numbers[i], numbers[last]);
    i = last + 1;
  }
  return text;
}

std::string count_of(int count, std::string_view what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}

/// One CPU for each thread: all cores' first hardware threads, then their second ones. Empty if
/// there are too few.
std::vector<int> pick_cpus(const std::vector<Core>& cores, int threads) {
  std::vector<int> cpus;
  std::size_t most = 0;
  for (const Core& core : cores) most = std::max(most, core.size());
  for (std::size_t which = 0; which < most; ++which) {
    for (const Core& core : cores) {
      if (which >= core.size()) continue;
      cpus.push_back(core[which]);
      if (static_cast<int>(cpus.size()) == threads) return cpus;
    }
  }
  return {};
}

/// quota / period of one control group; 0 if it has none.
double group_quota(const std::string& folder) {
  std::string quota;
  double period = 0;
  if (std::ifstream(folder + "/cpu.max") >> quota >> period) {  // version 2
    return quota == "max" || period <= 0 ? 0 : std::atof(quota.c_str()) / period;
  }
  double micros = 0;
  if (std::ifstream(folder + "/cpu.cfs_quota_us") >> micros &&  // version 1
      std::ifstream(folder + "/cpu.cfs_period_us") >> period) {
    return micros <= 0 || period <= 0 ? 0 : micros / period;
  }
  return 0;
}

}  // namespace

std::vector<int> allowed_cpus() {
  CpuMask mask;
  const pid_t launcher = find_launcher();
  if (launcher != 0 && mask.read_from(launcher)) return mask.cpus();
  CpuMask own;
  check(own.read_from(0), "cannot read which CPUs this process may use");
  return own.cpus();
}

std::vector<Core> find_cores(const std::vector<int>& cpus) {
  const std::set<int> wanted(cpus.begin(), cpus.end());
  std::set<int> seen;
  std::vector<Core> cores;
  hwloc_topology_t topology = nullptr;
  if (hwloc_topology_init(&topology) == 0) {
    const std::unique_ptr<hwloc_topology, decltype(&hwloc_topology_destroy)> owner(
        topology, hwloc_topology_destroy);
    if (hwloc_topology_load(topology) == 0) {
      const int count = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE);
      for (int i = 0; i < count; ++i) {
        const hwloc_obj_t object =
            hwloc_get_obj_by_type(topology, HWLOC_OBJ_CORE, static_cast<unsigned>(i));
        Core core;
        for (int cpu = hwloc_bitmap_first(object->cpuset); cpu >= 0;
             cpu = hwloc_bitmap_next(object->cpuset, cpu)) {
          if (wanted.count(cpu) > 0 && seen.insert(cpu).second) core.push_back(cpu);
        }
        if (!core.empty()) cores.push_back(std::move(core));
      }
      if (!cores.empty()) return cores;
    }
  }
  for (const int cpu : cpus) cores.push_back({cpu});  // a machine that hides its cores
  return cores;
}

double cpu_quota() {
  std::string path = "/";
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    if (line.starts_with("0::")) path = line.substr(3);
  }
  double least = group_quota("/sys/fs/cgroup/cpu");
  for (;;) {  // a group's limit holds for those below it
    const double quota = group_quota("/sys/fs/cgroup" + path);
    if (quota > 0) least = least > 0 ? std::min(least, quota) : quota;
    const std::size_t slash = path.rfind('/');
    if (path.size() <= 1 || slash == std::string::npos) return least;
    path.resize(std::max<std::size_t>(slash, 1));
  }
}

Placement place(const std::vector<Core>& cores, int local_rank, int local_size, int threads,
                double quota) {
  check(0 <= local_rank && local_rank < local_size && threads >= 0,
        "no place for rank {} of {} with {} threads", local_rank, local_size, threads);
  const int num_cores = static_cast<int>(cores.size());
  Placement placement;
  placement.threads = threads;
  if (threads == 0) {
    const int granted = quota > 0 ? static_cast<int>(std::ceil(quota)) : num_cores;
    placement.threads = std::max(1, std::min(num_cores, granted) / local_size);
  }
  if (local_size <= num_cores) {
    const std::vector<Core> own(
        cores.begin() + std::int64_t{local_rank} * num_cores / local_size,
        cores.begin() + (std::int64_t{local_rank} + 1) * num_cores / local_size);
    placement.cpus = pick_cpus(own, placement.threads);
  }
  const int wanted = placement.threads * local_size;
  placement.oversubscribed =
      placement.cpus.empty() || (quota > 0 && static_cast<double>(wanted) > std::ceil(quota));
  const std::string text = count_of(placement.threads, "thread");
  placement.text =
      placement.cpus.empty()
          ? fmt::format("{}, not bound: {} of {} share {}", text, count_of(local_size, "rank"),
                        text, count_of(num_cores, "core"))
          : fmt::format("{} on CPU {}", text, list_ranges(placement.cpus));
  return placement;
}

void bind(const Placement& placement) {
  if (placement.cpus.empty()) {
    // The launcher may have bound this rank to a core that others use as well.
    CpuMask all;
    for (const int cpu : allowed_cpus()) all.add(cpu);
    all.apply();
    return;
  }
  CpuMask mask;
  for (const int cpu : placement.cpus) mask.add(cpu);
  check(mask.apply(), "cannot bind to CPU {}", list_ranges(placement.cpus));
}

void bind_to_cpu(int cpu) {
  CpuMask mask;
  mask.add(cpu);
  check(mask.apply(), "cannot bind to CPU {}", cpu);
}

KeptBinding::KeptBinding() {
  CpuMask mask;
  if (mask.read_from(0)) cpus_ = mask.cpus();
}

KeptBinding::~KeptBinding() {
  CpuMask mask;
  for (const int cpu : cpus_) mask.add(cpu);
  if (!cpus_.empty()) mask.apply();
}

}  // namespace paceline::parallel
