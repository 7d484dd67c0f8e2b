#pragma once

#include <memory>
#include <string>
#include <vector>

#include "launcher/bench_cases.h"
#include "launcher/bench_options.h"
#include "launcher/bench_report.h"
#include "launcher/command_line.h"
#include "launcher/deployment.h"
#include "runtime/bench/figures.h"
#include "runtime/bench/machine.h"

namespace paceline::launcher {

/// One loaded model and everything that is measured with it. All ranks make and run it alike.
class BenchSession {
 public:
  /// Reads and checks the model and the load. Throws ConfigError, the same on all ranks.
  BenchSession(const BenchGroup& group, Context& context);

  /// Loads the model, runs all tests and adds what they gave to the report (on rank 0 alone).
  void run(BenchReport& report);

 private:
  void check_cache() const;
  void load();
  runtime::Drafting drafting(const DraftOptions& draft);
  runtime::JobRun run_once(const runtime::Workload& workload, const runtime::Drafting& drafting);
  void run_case(const BenchCase& item, BenchReport& report);
  void time_steps(BenchReport& report);
  std::vector<std::uint64_t> measure_memory();
  BenchSetting setting();
  std::int32_t pages_needed() const;
  bool speaks() const { return context_.world.rank() == 0; }

  const BenchGroup& group_;
  const BenchOptions& options_;
  Context& context_;
  Deployment deployment_;
  std::vector<BenchCase> cases_;
  std::int32_t num_pages_ = 0;
  std::int32_t max_rows_ = 0;  // of a step
  double load_seconds_ = 0;
  std::uint64_t weight_bytes_read_ = 0;  // by a replica's ranks in a step
  std::uint64_t peak_memory_ = 0;        // this rank's so far, without what measuring takes
  runtime::EnergyCounter energy_;
};

}  // namespace paceline::launcher
