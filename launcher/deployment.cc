#include "launcher/deployment.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <new>
#include <numeric>

#include "kernels/core/error.h"
#include "kernels/cuda/backend.h"
#include "runtime/drafting/step_costs.h"
#include "runtime/model/attention_math.h"
#include "runtime/model/fingerprint.h"

namespace paceline::launcher {
namespace {

/// `name` as --kv-format takes it.
kernels::KvFormat choose_kv_format(std::string_view name, const runtime::WeightFormats& weights) {
  if (name == "fp32") return kernels::KvFormat::kFp32;
  if (name == "bf16") return kernels::KvFormat::kBf16;
  if (name == "int8") return kernels::KvFormat::kInt8;
  return weights.linear == kernels::WeightFormat::kFp32 ? kernels::KvFormat::kFp32
                                                        : kernels::KvFormat::kBf16;
}

}  // namespace

std::string size_text(std::uint64_t bytes) {
  const auto size = static_cast<double>(bytes);
  if (size >= 1e9) return fmt::format("{:.2f} GB", size / 1e9);
  if (size >= 1e6) return fmt::format("{:.1f} MB", size / 1e6);
  return fmt::format("{:.1f} kB", size / 1e3);
}

// What the kernel would give without swapping.
std::uint64_t free_memory() {
  std::ifstream info("/proc/meminfo");
  for (std::string key; info >> key;) {
    std::uint64_t kilobytes = 0;
    if (key == "MemAvailable:" && info >> kilobytes) return kilobytes << 10;
    info.ignore(256, '\n');
  }
  return std::uint64_t{4} << 30;
}

std::vector<std::string> gather_texts(parallel::Communicator& group, const std::string& mine) {
  const auto size = static_cast<std::size_t>(group.size());
  std::vector<std::uint64_t> lengths(size);
  const std::uint64_t length = mine.size();
  group.all_gather(std::as_bytes(std::span(&length, 1)), std::as_writable_bytes(std::span(lengths)),
                   std::vector<std::size_t>(size, sizeof(length)));
  std::vector<std::size_t> sizes(lengths.begin(), lengths.end());
  std::string all(std::accumulate(sizes.begin(), sizes.end(), std::size_t{0}), '\0');
  group.all_gather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all)), sizes);
  std::vector<std::string> texts;
  std::size_t begin = 0;
  for (const std::size_t bytes : sizes) {
    texts.push_back(all.substr(begin, bytes));
    begin += bytes;
  }
  return texts;
}

void together(parallel::World& world, const std::function<void()>& work) {
  std::string failure;
  try {
    work();
  } catch (const std::exception& error) {
    failure = error.what();
    if (failure.empty()) failure = "failed without a message";
  }
  const std::vector<std::string> failures = gather_texts(world.all(), failure);
  const auto first = std::find_if(failures.begin(), failures.end(),
                                  [](const auto& text) { return !text.empty(); });
  if (first == failures.end()) return;
  const bool everywhere = std::count(failures.begin(), failures.end(), *first) == world.size();
  if (everywhere) throw ConfigError("{}", *first);
  throw ConfigError("{}: {}", world.name(static_cast<int>(first - failures.begin())), *first);
}

PlacedBackend place_backend(parallel::World& world, const ClusterOptions& options) {
  PlacedBackend placed;
  placed.placement = parallel::place(parallel::find_cores(world.node_cpus()), world.local_rank(),
                                     world.local_size(), options.threads, parallel::cpu_quota());
  world.set_crowded(placed.placement.oversubscribed);
  // An instruction set is the CPU's: who names one means the CPU.
  if (options.device == "cuda" || (options.device == "auto" && options.isa.empty())) {
    const kernels::CudaDevices gpus = kernels::find_cuda_devices();
    if (gpus.count > 0) {
      placed.backend = kernels::make_cuda_backend({.device = world.local_rank() % gpus.count,
                                                   .graphs = !options.no_graphs,
                                                   .threads = placed.placement.threads,
                                                   .fast = options.numerics == "fast"});
      world.watch_device(*placed.backend);
      return placed;
    }
    if (options.device == "cuda") throw ConfigError("--device cuda: {}", gpus.why_none);
  }
  if (options.numerics == "fast") {
    throw ConfigError(
        "--numerics fast: it is for a GPU (--device cuda), but this rank computes on the CPU");
  }
  placed.backend = kernels::make_cpu_backend(
      {.threads = placed.placement.threads, .isa = options.isa, .cpus = placed.placement.cpus});
  return placed;
}

JoinedReplica join_replica(parallel::World& world, const ClusterOptions& options, int tp,
                           const kernels::Backend& backend) {
  JoinedReplica replica;
  const parallel::AllReduce all_reduce = parallel::parse_all_reduce(options.all_reduce);
  bool by_nccl = false;
  together(world, [&] {
    const parallel::Exchange exchange = parallel::parse_exchange(options.exchange);
    replica.group = world.split_replicas(tp, exchange);
    if (tp == 1) return;
    if (exchange == parallel::Exchange::kAuto || exchange == parallel::Exchange::kNccl) {
      const std::string obstacle = world.nccl_obstacle(*replica.group, backend);
      by_nccl = obstacle.empty();
      if (exchange == parallel::Exchange::kNccl && !by_nccl) {
        throw ConfigError("--exchange nccl: {}", obstacle);
      }
      if (backend.native_stream()) replica.why_by_host = obstacle;
    }
    if (all_reduce == parallel::AllReduce::kNccl && !by_nccl) {
      throw ConfigError("--all-reduce nccl: ranks exchange by {}, expected NCCL (--exchange nccl)",
                        replica.group->exchange());
    }
  });
  // What fails here has no message of all ranks: it ends the job.
  if (by_nccl) {
    world.enter("connect");
    replica.group = world.connect_devices(std::move(replica.group), backend, all_reduce);
  }
  return replica;
}

Deployment::Deployment(parallel::World& world, const ModelOptions& model,
                       const ClusterOptions& cluster, const DraftOptions& draft)
    : world_(world) {
  // The other ranks wait while the model's files are hashed, perhaps from a slow disk.
  constexpr auto kConfigurePatience = std::chrono::minutes(30);
  world_.enter("configure", kConfigurePatience);
  together(world_, [&] {
    tp_ = cluster.tp == 0 ? world_.size() : cluster.tp;
    read_model(model);
    drafting_.emplace(draft, runtime::DraftedModel{model.model, config_, *checkpoint_});
  });
  together(world_, [&] {
    PlacedBackend placed = place_backend(world_, cluster);
    placement_ = std::move(placed.placement);
    backend_ = std::move(placed.backend);
  });
  replica_ = join_replica(world_, cluster, tp_, *backend_);
  world_.enter("configure", kConfigurePatience);
  together(world_, [&] {
    plan_ = runtime::plan_shards(config_, formats_, model.virtual_shards, tp_, replica().rank());
    attention_ = runtime::choose_attention(model.attention, backend_->numerics(), formats_,
                                           kv_format_, config_.head_dim);
    parallel::DeviceExchange* const device = replica().device();
    // A library's products depend on how a matrix is cut.
    const std::string products = cluster.numerics == "fast" ? fmt::format("/tp{}", tp_) : "";
    numerics_id_ = runtime::numerics_id(
        std::string(backend_->numerics()) + products, formats_, model.virtual_shards, kv_format_,
        device != nullptr && device->reduces() ? tp_ : 0, attention_);
    // Once a node: its ranks see the same files.
    if (world_.local_rank() == 0) {
      model_sha256_ = runtime::model_fingerprint(model.model, *checkpoint_);
    }
  });
  compare_ranks();
}

// Ranks that compute with other numbers, or nodes with another copy of the model, would disagree on
// tokens sooner or later: better to say so now, and why.
void Deployment::compare_ranks() {
  const auto name = [&](std::size_t rank) { return world_.name(static_cast<int>(rank)); };
  const std::vector<std::string> ids = gather_texts(world_.all(), numerics_id_);
  const std::vector<std::string> models = gather_texts(world_.all(), model_sha256_);
  for (std::size_t rank = 1; rank < ids.size(); ++rank) {
    if (ids[rank] != ids[0]) {
      throw ConfigError("{} would compute with numerics {}, {} with {}", name(0), ids[0],
                        name(rank), ids[rank]);
    }
    if (!models[rank].empty() && models[rank] != models[0]) {
      throw ConfigError("--model: {} and {} see different files under the same name", name(0),
                        name(rank));
    }
  }
}

void Deployment::read_model(const ModelOptions& options) {
  config_ = runtime::read_model_config(options.model);
  checkpoint_ = runtime::Checkpoint::open(options.model);
  runtime::check_checkpoint(*checkpoint_, config_);
  formats_ =
      runtime::choose_formats(*checkpoint_, config_, runtime::parse_weight_choice(options.weights));
  kv_format_ = choose_kv_format(options.kv_format, formats_);
}

std::int32_t Deployment::kv_pages(std::uint64_t memory, int sequences) {
  const std::size_t page = runtime::kv_page_bytes(config_, plan_, kv_format_);
  std::uint64_t pages = 0;
  if (memory > 0) {
    pages = memory / page;
  } else {
    const std::uint64_t full_length = static_cast<std::uint64_t>(
        (config_.max_positions + runtime::kPageSize - 1) / runtime::kPageSize);
    const std::uint64_t free = backend_->free_memory().value_or(free_memory());
    const std::uint64_t share = free / 2 / static_cast<std::uint64_t>(world_.local_size());
    pages = std::min(full_length * static_cast<std::uint64_t>(sequences), share / page);
  }
  pages = std::min<std::uint64_t>(pages, std::numeric_limits<std::int32_t>::max() / 2);
  const std::vector<std::uint64_t> all = gather_values(world_.all(), pages);
  const std::uint64_t fewest = *std::min_element(all.begin(), all.end());
  if (fewest == 0) {
    throw ConfigError("--kv-memory {}: not one page of {} ({} tokens) fits",
                      memory > 0 ? size_text(memory) : "auto", size_text(page), runtime::kPageSize);
  }
  return static_cast<std::int32_t>(fewest);
}

void Deployment::load(const runtime::LlamaModel::Limits& limits, std::int32_t num_pages) {
  constexpr auto kLoadPatience = std::chrono::minutes(30);
  world_.enter("load", kLoadPatience);
  together(world_, [&] {
    try {
      cache_.emplace(config_, plan_, kv_format_, num_pages, *backend_);
    } catch (const std::bad_alloc&) {
      throw ConfigError("--kv-memory: {} for keys and values cannot be allocated",
                        size_text(static_cast<std::uint64_t>(num_pages) *
                                  runtime::kv_page_bytes(config_, plan_, kv_format_)));
    }
    parallel::Communicator& group = timed_ ? *timed_ : replica();
    model_ = std::make_unique<runtime::LlamaModel>(config_, *checkpoint_, plan_, formats_, limits,
                                                   *backend_, group, attention_);
    drafting_->load(*model_, *backend_);
  });
  if (!backend_->shares_host_memory()) runtime::warm_up(*model_, *backend_, cache_->pool());
  drafting_->measure(*model_, *backend_, replica(), cache_->pool(),
                     static_cast<std::int32_t>(std::min(limits.max_rows, limits.max_sampled)));
  checkpoint_.reset();  // its pages would count as this rank's memory
}

std::string Deployment::exchange_text() const {
  const std::string_view exchange = replica_.group->exchange();
  if (replica_.why_by_host.empty()) return std::string(exchange);
  return fmt::format("{} (not NCCL: {})", exchange, replica_.why_by_host);
}

std::string Deployment::describe(std::int32_t num_pages) {
  const auto range = [](const kernels::IndexRange& r) {
    return r.size() == 0 ? std::string("none") : fmt::format("{}-{}", r.begin, r.end - 1);
  };
  const std::uint64_t weights = runtime::weight_bytes(config_, formats_, plan_);
  const std::uint64_t kv =
      static_cast<std::uint64_t>(num_pages) * runtime::kv_page_bytes(config_, plan_, kv_format_);
  const std::string mine = fmt::format(
      "  {}: replica {}, shards {}, query heads {}, kv heads {}, FFN columns {}, weights {}, "
      "kv {}; {}",
      world_.name(world_.rank()), world_.rank() / tp_, range(plan_.shards),
      range(plan_.query_heads), range(plan_.kv_heads), range(plan_.ffn_cols), size_text(weights),
      size_text(kv), placement_.text);
  std::string text = fmt::format(
      "ranks     {} = {} replica(s) of {} (tensor parallel), exchange by {}\n"
      "numerics  {}\n"
      "backend   {}\n"
      "kv cache  {} pages of {} tokens on every rank: {} tokens at once in a replica\n",
      world_.size(), num_replicas(), tp_, exchange_text(), numerics_id_, backend_->description(),
      num_pages, runtime::kPageSize, static_cast<std::int64_t>(num_pages) * runtime::kPageSize);
  // The largest load decides the speed: with 8 shards 5 to 7 ranks do no better than 4.
  const int largest = (plan_.virtual_shards + tp_ - 1) / tp_;
  const int as_good = (plan_.virtual_shards + largest - 1) / largest;
  if (as_good < tp_) {
    text +=
        fmt::format("note      the busiest of {} ranks carries {} of {} shards, as with --tp {}\n",
                    tp_, largest, plan_.virtual_shards, as_good);
  }
  if (!formats_.conversion.empty()) text += fmt::format("note      {}\n", formats_.conversion);
  for (const std::string& line : gather_texts(world_.all(), mine)) text += line + "\n";
  return text;
}

}  // namespace paceline::launcher
