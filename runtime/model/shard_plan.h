#pragma once

#include <string>
#include <vector>

#include "parallel/shards.h"
#include "runtime/model/config.h"
#include "runtime/model/weights.h"

namespace paceline::runtime {

/// How a model is dealt to virtual shards, and which of them one rank keeps.
struct ShardPlan {
  int virtual_shards = 8;
  int tp = 1;
  int rank = 0;
  std::vector<kernels::IndexRange> heads;  // [V] query heads of each shard
  std::vector<kernels::IndexRange> ffn;    // [V] FFN columns of each shard

  // This rank's part.
  kernels::IndexRange shards;
  kernels::IndexRange query_heads;
  kernels::IndexRange kv_heads;  // replicated where several ranks' query heads need one
  kernels::IndexRange ffn_cols;
  kernels::IndexRange vocabulary;

  /// Cache head (counted from the rank's first) of each of the rank's query heads.
  std::vector<std::int32_t> kv_head_of_query() const;
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
};

/// Heads are dealt in atoms whose columns fill whole activation groups of the format, FFN columns
/// in atoms of a group. Throws ConfigError if tp is not in [1, virtual_shards].
ShardPlan plan_shards(const ModelConfig& config, const WeightFormats& formats, int virtual_shards,
                      int tp, int rank);

/// Bytes of weights that a rank keeps.
std::size_t weight_bytes(const ModelConfig& config, const WeightFormats& formats,
                         const ShardPlan& plan);

/// Of these, the bytes that a step reads: all but an embedding that is not the output matrix, too.
std::size_t weight_bytes_read(const ModelConfig& config, const WeightFormats& formats,
                              const ShardPlan& plan);

/// Everything that output bits depend on besides the model and the request, as one string.
/// `reducing_ranks`: so many ranks whose sums NCCL adds in its own order; 0: the contract's order.
std::string numerics_id(std::string_view backend, const WeightFormats& formats, int virtual_shards,
                        kernels::KvFormat kv, int reducing_ranks = 0,
                        kernels::AttentionMath attention = kernels::AttentionMath::kFp32);

}  // namespace paceline::runtime
