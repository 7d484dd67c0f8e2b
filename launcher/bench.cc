#include <iostream>
#include <memory>

#include "kernels/core/error.h"
#include "launcher/bench_options.h"
#include "launcher/bench_report.h"
#include "launcher/bench_session.h"
#include "launcher/command_line.h"
#include "launcher/generate_report.h"
#include "launcher/report_file.h"
#include "parallel/placement.h"
#include "runtime/bench/machine.h"

namespace paceline::launcher {
namespace {

// As many as the whole model has numbers of four bytes in fp32.
std::int64_t parameters_of(const std::string& model) {
  const runtime::ModelConfig config = runtime::read_model_config(model);
  const runtime::WeightFormats fp32;
  return static_cast<std::int64_t>(
      runtime::weight_bytes(config, fp32, runtime::plan_shards(config, fp32, 1, 1, 0)) /
      sizeof(float));
}

BenchReport describe_job(const BenchOptions& options, parallel::World& world) {
  return {.model = model_name(options.model.model),
          .cpu = runtime::cpu_name(),
          .cores = static_cast<int>(parallel::find_cores(world.node_cpus()).size()),
          .memory = runtime::total_memory(),
          .mpi = parallel::mpi_version(),
          .hosts = gather_texts(world.all(), world.host()),
          .seed = options.seed,
          .temperature = options.temperature,
          .simulated = options.simulate_acceptance};
}

int run_bench(const std::vector<BenchGroup>& groups, Context& context) {
  context.signals.end_at_once();
  const BenchOptions& options = groups.front().options;
  const bool speaks = context.world.rank() == 0;
  BenchReport report = describe_job(options, context.world);
  together(context.world, [&] {
    report.parameters = parameters_of(options.model.model);
    if (!speaks) return;
    check_writable("--json", options.json);
    check_writable("--csv", options.csv);
  });
  for (const BenchGroup& group : groups) {
    const parallel::KeptBinding kept;  // each model binds its threads anew
    BenchSession(group, context).run(report);
  }
  if (!speaks) return kSuccess;
  std::cout << (options.markdown ? markdown_table(report) : bench_text(report)) << std::flush;
  write_file("--json", options.json, bench_json(report).dump(2) + "\n");
  write_file("--csv", options.csv, bench_csv(report));
  return kSuccess;
}

}  // namespace

void add_bench(CLI::App& app, Action& action) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* command = app.add_subcommand(
      "bench", "Measure speed: prompts of many lengths, many requests, drafts, ranks");
  add_options(*command, *options);
  // Not needed by `bench exchange`, so that it is asked for here.
  CLI::Option* model = command->get_option("--model")->required(false);
  add_bench_exchange(*command, action);
  command->callback([options, command, model, &action] {
    if (!command->get_subcommands().empty()) return;
    if (model->empty()) throw CLI::RequiredError("--model");
    action = [options, command](Context& context) {
      return run_bench(expand_sweep(*command, *options), context);
    };
  });
}

}  // namespace paceline::launcher
