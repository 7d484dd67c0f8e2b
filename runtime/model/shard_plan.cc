#include "runtime/model/shard_plan.h"

#include <algorithm>
#include <numeric>

#include "kernels/core/error.h"

namespace paceline::runtime {

using kernels::IndexRange;

std::vector<std::int32_t> ShardPlan::kv_head_of_query() const {
  std::vector<std::int32_t> heads_of;
  for (std::int64_t head = query_heads.begin; head < query_heads.end; ++head) {
    heads_of.push_back(
        static_cast<std::int32_t>(head / (num_heads / num_kv_heads) - kv_heads.begin));
  }
  return heads_of;
}

ShardPlan plan_shards(const ModelConfig& config, const WeightFormats& formats, int virtual_shards,
                      int tp, int rank) {
  if (virtual_shards < 1 || virtual_shards > 64) {
    throw ConfigError("--virtual-shards {}: expected 1 to 64", virtual_shards);
  }
  if (tp < 1 || tp > virtual_shards) {
    throw ConfigError("--tp {}: expected 1 to {}, the number of virtual shards", tp,
                      virtual_shards);
  }
  const std::int64_t group = std::max(1, kernels::activation_group(formats.linear));
  ShardPlan plan;
  plan.virtual_shards = virtual_shards;
  plan.tp = tp;
  plan.rank = rank;
  plan.num_heads = config.num_heads;
  plan.num_kv_heads = config.num_kv_heads;
  plan.heads = parallel::deal(config.num_heads, std::lcm(group, config.head_dim) / config.head_dim,
                              virtual_shards);
  plan.ffn = parallel::deal(config.intermediate_size, group, virtual_shards);
  plan.shards = parallel::rank_shards(virtual_shards, tp, rank);
  plan.query_heads = parallel::rank_units(plan.heads, plan.shards);
  plan.kv_heads = parallel::kv_heads_for(plan.query_heads, config.num_heads, config.num_kv_heads);
  plan.ffn_cols = parallel::rank_units(plan.ffn, plan.shards);
  plan.vocabulary = parallel::rank_units(
      parallel::vocabulary_shards(config.vocab_size, virtual_shards), plan.shards);
  return plan;
}

namespace {

std::size_t matrix_bytes(kernels::WeightFormat format, std::int64_t rows, std::int64_t cols) {
  const kernels::RowBytes row = kernels::row_bytes(format, cols);
  return static_cast<std::size_t>(rows) * (row.values + row.scales + row.minimums);
}

std::size_t table_bytes(const ModelConfig& config, const WeightFormats& formats,
                        const ShardPlan& plan) {
  return matrix_bytes(formats.vocabulary, plan.vocabulary.size(), config.hidden_size);
}

}  // namespace

std::size_t weight_bytes(const ModelConfig& config, const WeightFormats& formats,
                         const ShardPlan& plan) {
  const std::int64_t hidden = config.hidden_size;
  const std::int64_t q = plan.query_heads.size() * config.head_dim;
  const std::int64_t kv = plan.kv_heads.size() * config.head_dim;
  const std::int64_t ffn = plan.ffn_cols.size();
  const std::size_t layer = matrix_bytes(formats.linear, q + 2 * kv + 2 * ffn, hidden) +
                            matrix_bytes(formats.linear, hidden, q) +
                            matrix_bytes(formats.linear, hidden, ffn) +
                            static_cast<std::size_t>(2 * hidden) * sizeof(float);
  const std::size_t table = table_bytes(config, formats, plan);
  return static_cast<std::size_t>(config.num_layers) * layer +
         (config.tie_word_embeddings ? 1 : 2) * table +
         static_cast<std::size_t>(hidden) * sizeof(float);
}

std::size_t weight_bytes_read(const ModelConfig& config, const WeightFormats& formats,
                              const ShardPlan& plan) {
  return weight_bytes(config, formats, plan) -
         (config.tie_word_embeddings ? 0 : table_bytes(config, formats, plan));
}

std::string numerics_id(std::string_view backend, const WeightFormats& formats, int virtual_shards,
                        kernels::KvFormat kv, int reducing_ranks,
                        kernels::AttentionMath attention) {
  const auto weights = [](kernels::WeightFormat format) {
    const int group = kernels::activation_group(format);
    return group > 0 ? fmt::format("{}/a{}", kernels::format_name(format), group)
                     : std::string(kernels::format_name(format));
  };
  const bool bf16 = formats.linear == kernels::WeightFormat::kBf16 ||
                    formats.vocabulary == kernels::WeightFormat::kBf16;
  return fmt::format("{},w={},vocab={},v={},kv={},segment={}{}{}{}", backend,
                     weights(formats.linear), weights(formats.vocabulary), virtual_shards,
                     kernels::format_name(kv), kernels::kAttentionSegment,
                     attention == kernels::AttentionMath::kBf16 ? ",attention=bf16" : "",
                     bf16 ? (backend.starts_with("cuda") ? ",bf16=mma" : ",bf16=dpbf16") : "",
                     reducing_ranks > 0 ? fmt::format(",sum=nccl/tp{}", reducing_ranks) : "");
}

}  // namespace paceline::runtime
