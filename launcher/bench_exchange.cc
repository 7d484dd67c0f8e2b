#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <numeric>

#include "kernels/core/error.h"
#include "launcher/command_line.h"
#include "launcher/deployment.h"
#include "launcher/exchange_table.h"
#include "launcher/report_file.h"
#include "parallel/linear.h"
#include "parallel/shards.h"

namespace paceline::launcher {
namespace {

struct BenchExchangeOptions {
  ClusterOptions cluster;
  std::uint64_t min_bytes = 4;
  std::uint64_t max_bytes = std::uint64_t{16} << 20;
  int virtual_shards = 8;
  int iterations = 20;
  std::string json;
};

constexpr int kWarmUps = 5;

/// The exchanges of one group of ranks, as the model's layers make them.
class ExchangeRun {
 public:
  ExchangeRun(const BenchExchangeOptions& options, Context& context, kernels::Backend& backend,
              parallel::Communicator& group)
      : options_(options), context_(context), backend_(backend), group_(group) {}

  // Every rank's block on every rank; what the vocabulary's logits need.
  ExchangeTiming all_gather(std::uint64_t bytes) {
    const auto ranks = static_cast<std::uint64_t>(group_.size());
    const std::uint64_t words = std::max<std::uint64_t>(1, bytes / sizeof(std::uint32_t) / ranks);
    parallel::ExchangeWorkspace exchange(backend_, group_, options_.virtual_shards);
    const auto blocks =
        exchange.prepare(std::vector<std::int64_t>(ranks, static_cast<std::int64_t>(words)), 1);
    const auto value = [&](std::uint64_t rank, std::uint64_t i) {
      return static_cast<std::uint32_t>(rank * 1'000'003 + i);
    };
    std::vector<std::uint32_t> all(words * ranks);
    for (std::uint64_t i = 0; i < words; ++i) {
      all[i] = value(static_cast<std::uint64_t>(group_.rank()), i);
    }
    const std::size_t bytes_each = words * sizeof(std::uint32_t);
    backend_.upload(blocks.mine, all.data(), bytes_each);
    ExchangeTiming timing = time("all_gather", bytes_each * ranks, [&] { exchange.gather(); });
    backend_.download(all.data(), blocks.all, bytes_each * ranks);
    std::int64_t wrong = 0;
    for (std::uint64_t rank = 0; rank < ranks; ++rank) {
      for (std::uint64_t i = 0; i < words; ++i) wrong += all[rank * words + i] != value(rank, i);
    }
    timing.wrong = total(wrong);
    return timing;
  }

  // Partial sums of all virtual shards, added in their order on every rank, or in NCCL's: what
  // follows each row-parallel product.
  ExchangeTiming sum(std::uint64_t bytes) {
    const std::int64_t floats =
        std::max<std::int64_t>(1, static_cast<std::int64_t>(bytes / sizeof(float)));
    parallel::ExchangeWorkspace exchange(backend_, group_, options_.virtual_shards);
    const parallel::PartialSums partials = exchange.shard_sums();
    const std::size_t size = static_cast<std::size_t>(floats) * sizeof(float);
    kernels::Buffer out = backend_.allocate(size);
    // NCCL adds where the partials are: they are ones in the first exchange and what it left after.
    const auto fill = [&] {
      const std::vector<float> ones(
          static_cast<std::size_t>(partials.counts[static_cast<std::size_t>(group_.rank())] *
                                   floats),
          1.0f);
      backend_.upload(exchange.prepare_sum(partials, floats), ones.data(),
                      ones.size() * sizeof(float));
    };
    const auto add = [&] { exchange.sum(partials, floats, out.as<float>()); };
    fill();
    ExchangeTiming timing = time(exchange.reduces() ? "all_reduce" : "ordered_sum", size, add);
    fill();
    add();
    std::vector<float> sum(static_cast<std::size_t>(floats));
    backend_.download(sum.data(), out.as<float>(), size);
    const auto expected = static_cast<float>(partials.merges.size());
    timing.wrong =
        total(std::ranges::count_if(sum, [&](float value) { return value != expected; }));
    return timing;
  }

 private:
  template <typename Operation>
  ExchangeTiming time(const char* name, std::uint64_t bytes, const Operation& operation) {
    using Clock = std::chrono::steady_clock;
    context_.world.enter("exchange");
    for (int i = 0; i < kWarmUps; ++i) operation();
    backend_.synchronize();
    double sum = 0;
    double least = 0;
    for (int i = 0; i < options_.iterations; ++i) {
      const auto begin = Clock::now();
      operation();
      backend_.synchronize();
      const double us = std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
      sum += us;
      least = i == 0 ? us : std::min(least, us);
    }
    const std::vector<double> sums = gather_values(group_, sum);
    const std::vector<double> bests = gather_values(group_, least);
    return {.exchange = std::string(group_.exchange()),
            .operation = name,
            .bytes = bytes,
            .mean_us = *std::ranges::max_element(sums) / options_.iterations,
            .min_us = *std::ranges::max_element(bests),
            .ranks = group_.size()};
  }

  std::int64_t total(std::int64_t of_rank) {
    const std::vector<std::int64_t> all = gather_values(group_, of_rank);
    return std::accumulate(all.begin(), all.end(), std::int64_t{0});
  }

  const BenchExchangeOptions& options_;
  Context& context_;
  kernels::Backend& backend_;
  parallel::Communicator& group_;
};

// Those asked for; with auto all that are possible, and by NCCL its own sums, too.
std::vector<JoinedReplica> groups_of(const ClusterOptions& options, int tp, parallel::World& world,
                                     const kernels::Backend& backend) {
  std::vector<JoinedReplica> groups;
  groups.push_back(join_replica(world, options, tp, backend));
  if (options.exchange != "auto") return groups;
  ClusterOptions other = options;
  const bool by_nccl = groups.front().group->exchange() == "NCCL";
  if (std::ranges::count(gather_values(world.all(), by_nccl ? 1 : 0), 0) == 0) {
    other.all_reduce = options.all_reduce == "nccl" ? "canonical" : "nccl";
    groups.push_back(join_replica(world, other, tp, backend));
  }
  // By way of the host: what auto would be without NCCL, and MPI.
  other.all_reduce = "canonical";
  for (const char* exchange : {"shared", "mpi"}) {
    other.exchange = exchange;
    JoinedReplica joined;
    try {
      joined = join_replica(world, other, tp, backend);
    } catch (const ConfigError&) {
      continue;  // not on one node
    }
    if (joined.group->exchange() != groups.front().group->exchange()) {
      groups.push_back(std::move(joined));
    }
  }
  return groups;
}

int run_exchange(const BenchExchangeOptions& options, Context& context) {
  context.signals.end_at_once();
  parallel::World& world = context.world;
  const bool speaks = world.rank() == 0;
  const int tp = options.cluster.tp == 0 ? world.size() : options.cluster.tp;
  PlacedBackend placed;
  together(world, [&] {
    if (options.min_bytes > options.max_bytes) {
      throw ConfigError("--min-bytes {}: more than --max-bytes {}", options.min_bytes,
                        options.max_bytes);
    }
    if (tp > options.virtual_shards) {
      throw ConfigError("--tp {}: more ranks than the {} --virtual-shards", tp,
                        options.virtual_shards);
    }
    if (tp < 2) throw ConfigError("one rank exchanges nothing; run mpirun -n N with N > 1");
    placed = place_backend(world, options.cluster);
    if (speaks) check_writable("--json", options.json);
  });
  const std::vector<JoinedReplica> groups = groups_of(options.cluster, tp, world, *placed.backend);
  std::vector<ExchangeTiming> timings;
  for (const JoinedReplica& joined : groups) {
    ExchangeRun run(options, context, *placed.backend, *joined.group);
    parallel::DeviceExchange* const device = joined.group->device();
    const bool reduces = device != nullptr && device->reduces();
    for (const std::uint64_t bytes : exchange_sizes(options.min_bytes, options.max_bytes)) {
      if (!reduces) timings.push_back(run.all_gather(bytes));
    }
    for (const std::uint64_t bytes : exchange_sizes(options.min_bytes, options.max_bytes)) {
      timings.push_back(run.sum(bytes));
    }
  }
  if (!speaks) return kSuccess;
  std::cout << fmt::format("# {} ranks in groups of {}, {} iterations after {} to warm up\n",
                           world.size(), tp, options.iterations, kWarmUps)
            << exchange_table(timings) << std::flush;
  write_file("--json", options.json, exchange_json(timings).dump(2) + "\n");
  return std::ranges::all_of(timings, [](const auto& t) { return t.wrong == 0; }) ? kSuccess
                                                                                  : kFailure;
}

}  // namespace

void add_bench_exchange(CLI::App& bench, Action& action) {
  auto options = std::make_shared<BenchExchangeOptions>();
  CLI::App* command = bench.add_subcommand(
      "exchange", "Time what the ranks of a replica exchange, by message size (under mpirun)");
  add_options(*command, options->cluster);
  const auto add_size = [&](const char* name, std::uint64_t& value, const char* help) {
    command->add_option(name, value, help)
        ->transform(size_validator())
        ->option_text("SIZE")
        ->capture_default_str();
  };
  add_size("--min-bytes", options->min_bytes, "Smallest message; sizes are powers of two");
  add_size("--max-bytes", options->max_bytes, "Largest message");
  command
      ->add_option("--virtual-shards", options->virtual_shards,
                   "Pieces that a sum is made of, as in the model")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  command->add_option("--iterations", options->iterations, "Timed exchanges of each size")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  command->add_option("--json", options->json, "Write the figures as JSON")->option_text("FILE");
  command->callback([options, &action] {
    action = [options](Context& context) { return run_exchange(*options, context); };
  });
}

}  // namespace paceline::launcher
