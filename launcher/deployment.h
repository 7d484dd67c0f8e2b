#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/api.h"
#include "launcher/drafting.h"
#include "launcher/options.h"
#include "parallel/placement.h"
#include "parallel/timed_communicator.h"
#include "parallel/world.h"
#include "runtime/engine/kv_cache.h"
#include "runtime/model/llama.h"

namespace paceline::launcher {

/// A plain value of every rank, in rank order.
template <typename T>
std::vector<T> gather_values(parallel::Communicator& group, const T& mine) {
  const auto size = static_cast<std::size_t>(group.size());
  std::vector<T> all(size);
  group.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)),
                   std::vector<std::size_t>(size, sizeof(T)));
  return all;
}

/// A text, or any bytes, of every rank, in rank order.
std::vector<std::string> gather_texts(parallel::Communicator& group, const std::string& mine);

/// Runs `work` on every rank. If it throws on any of them, all throw a ConfigError with the message
/// of the lowest such rank, so that no rank waits for one that gave up.
void together(parallel::World& world, const std::function<void()>& work);

/// Where this rank's threads run, as --threads and its companions ask, and the backend on them.
/// Sets how the world waits. Throws ConfigError where that backend is not to be had.
struct PlacedBackend {
  parallel::Placement placement;
  std::unique_ptr<kernels::Backend> backend;
};
PlacedBackend place_backend(parallel::World& world, const ClusterOptions& options);

/// The ranks of this one's replica, connected as --exchange and --all-reduce ask. All ranks of the
/// world call it, each with its backend. Throws ConfigError, the same on all ranks.
struct JoinedReplica {
  std::unique_ptr<parallel::Communicator> group;
  std::string why_by_host;  // what kept --exchange auto from NCCL; empty without a GPU
};
JoinedReplica join_replica(parallel::World& world, const ClusterOptions& options, int tp,
                           const kernels::Backend& backend);

/// One rank's place in the job and its model: read and checked first, loaded later.
class Deployment {
 public:
  /// Reads the config, checks the checkpoint against it, cuts the world into replicas and deals the
  /// model to them. No weight is read. Throws ConfigError, the same on all ranks.
  Deployment(parallel::World& world, const ModelOptions& model, const ClusterOptions& cluster,
             const DraftOptions& draft = {});

  /// Pages of the key/value cache: as many as `memory` bytes hold (0: what `sequences` of full
  /// length need, at most half of the node's free memory), the same number on all ranks of the
  /// world. Throws ConfigError if that is not one page.
  std::int32_t kv_pages(std::uint64_t memory, int sequences);

  /// From now on what the model exchanges with the replica's other ranks is timed; before `load`.
  void time_exchange() { timed_.emplace(*replica_.group); }
  /// Seconds in those exchanges, waiting included.
  double exchange_seconds() const { return timed_ ? timed_->seconds() : 0; }

  /// Loads this rank's weights, and the drafter.
  void load(const runtime::LlamaModel::Limits& limits, std::int32_t num_pages);

  /// Where shards, threads and memory go: printed by --dry-run, one line an entry.
  std::string describe(std::int32_t num_pages);

  parallel::World& world() { return world_; }
  parallel::Communicator& replica() { return *replica_.group; }
  int tp() const { return tp_; }
  int num_replicas() const { return world_.size() / tp_; }
  bool leads_replica() const { return replica_.group->rank() == 0; }

  const runtime::ModelConfig& config() const { return config_; }
  const runtime::WeightFormats& formats() const { return formats_; }
  const runtime::ShardPlan& plan() const { return plan_; }
  const parallel::Placement& placement() const { return placement_; }
  /// "shared memory", and where NCCL could have been expected, why not.
  std::string exchange_text() const;
  const std::string& numerics_id() const { return numerics_id_; }
  /// runtime::model_fingerprint(), the same on every node. Empty but on each node's first rank.
  const std::string& model_sha256() const { return model_sha256_; }
  kernels::Backend& backend() { return *backend_; }
  runtime::LlamaModel& model() { return *model_; }
  Drafting& drafting() { return *drafting_; }
  const runtime::KvCache& cache() const { return *cache_; }
  int threads() const { return placement_.threads; }
  std::size_t kv_page_bytes() const { return runtime::kv_page_bytes(config_, plan_, kv_format_); }

 private:
  void read_model(const ModelOptions& options);
  void compare_ranks();

  parallel::World& world_;
  int tp_ = 1;
  runtime::ModelConfig config_;
  std::optional<runtime::Checkpoint> checkpoint_;
  runtime::WeightFormats formats_;
  kernels::KvFormat kv_format_ = kernels::KvFormat::kBf16;
  kernels::AttentionMath attention_ = kernels::AttentionMath::kFp32;
  runtime::ShardPlan plan_;
  parallel::Placement placement_;
  std::unique_ptr<kernels::Backend> backend_;
  JoinedReplica replica_;                             // ends before the backend and its stream
  std::optional<parallel::TimedCommunicator> timed_;  // around it
  std::string numerics_id_;
  std::string model_sha256_;
  std::optional<runtime::KvCache> cache_;
  std::unique_ptr<runtime::LlamaModel> model_;
  std::optional<Drafting> drafting_;
};

/// What this node would give without swapping, in bytes.
std::uint64_t free_memory();

/// "84.1 MB"
std::string size_text(std::uint64_t bytes);

}  // namespace paceline::launcher
