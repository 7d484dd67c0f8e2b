#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace paceline::parallel {

/// The CPUs that this process might use if the launcher had not bound it: those of the mpirun above
/// it, else its own. Ascending.
std::vector<int> allowed_cpus();

/// Where a rank's threads run.
struct Placement {
  int threads = 1;
  std::vector<int> cpus;        // one per thread; empty: not bound
  bool oversubscribed = false;  // threads share cores: waiting ranks should not spin
  std::string text;             // for the plan: "2 threads on cores 0-1"
};

/// A processor core: its CPUs (hardware threads), the first to be used first.
using Core = std::vector<int>;

/// The cores among the CPUs, in hwloc's order: neighbours share caches and memory.
std::vector<Core> find_cores(const std::vector<int>& cpus);

/// How many CPUs' worth of time the control group of this process may use; 0 if unlimited.
double cpu_quota();

/// Deals a node's cores to its ranks in consecutive runs. A rank's threads go to different cores
/// first, then to their other hardware threads. `threads` 0: one per core of the rank, but no more
/// in all than `quota` (if not 0). More ranks than cores, or threads than CPUs: nothing is bound.
Placement place(const std::vector<Core>& cores, int local_rank, int local_size, int threads,
                double quota);

/// Binds the calling thread, and those that it starts from now on, to the placement's CPUs.
void bind(const Placement& placement);
/// Binds the calling thread to one CPU.
void bind_to_cpu(int cpu);

/// Gives the calling thread back the CPUs that it may use now, when it ends: for a process that
/// makes one backend after the other, each of which binds the thread that makes it.
class KeptBinding {
 public:
  KeptBinding();
  ~KeptBinding();
  KeptBinding(const KeptBinding&) = delete;
  KeptBinding& operator=(const KeptBinding&) = delete;

 private:
  std::vector<int> cpus_;
};

}  // namespace paceline::parallel
