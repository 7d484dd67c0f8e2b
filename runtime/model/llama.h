#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/api.h"
#include "parallel/communicator.h"
#include "parallel/linear.h"
#include "runtime/engine/packed_batch.h"
#include "runtime/files/safetensors.h"
#include "runtime/model/config.h"
#include "runtime/model/shard_plan.h"
#include "runtime/model/weights.h"

namespace paceline::runtime {

/// One rank's part of a Llama-family model (Touvron et al. 2023; Mistral; Qwen2 with its biases)
/// and the memory that a step needs. Every rank of the communicator makes the same calls.
class LlamaModel {
 public:
  struct Limits {
    std::int64_t max_rows = 0;     // rows of one packed step
    std::int64_t max_sampled = 0;  // rows of one step that need logits
  };

  LlamaModel(const ModelConfig& config, const Checkpoint& checkpoint, const ShardPlan& plan,
             const WeightFormats& formats, const Limits& limits, kernels::Backend& backend,
             parallel::Communicator& communicator,
             kernels::AttentionMath attention_math = kernels::AttentionMath::kFp32);

  /// Feeds a packed batch: appends its keys and values to the cache and returns the hidden states,
  /// after the final norm, of batch.sampled_rows: [R, hidden], valid until the next forward.
  const float* forward(const PackedBatch& batch, const kernels::KvPool& cache);
  /// The same in two: the batch's arrays go to the device, then from them come the hidden states.
  /// Where `stays_on_device` the second does nothing but call ops of the backend, whose parameters
  /// depend on `sizes` alone, so that it may repeat them.
  void upload(const PackedBatch& batch);
  const float* compute(const PackedBatch& batch, const kernels::KvPool& cache);
  /// What it gave for the last batch.
  const float* hidden() const { return hidden_.as<float>(); }
  std::vector<std::int64_t> sizes(const PackedBatch& batch, const kernels::KvPool& cache) const;
  bool stays_on_device() const { return exchange_.stays_on_device(); }

  /// Logits [rows, vocab] of hidden states [rows, hidden], rows <= max_sampled; on every rank,
  /// valid until the next call.
  const float* logits(const float* hidden, std::int64_t rows);
  /// The same, but only this rank's part of the vocabulary: what `largest` needs.
  const float* part_of_logits(const float* hidden, std::int64_t rows);
  /// Greedy choices from the parts of all ranks: tokens [rows], on the device, -1 where a logit is
  /// not finite.
  void largest(const float* part, std::int32_t* tokens, std::int64_t rows);

  /// The last batch's, on the device.
  const kernels::PageTable& page_table() const { return page_table_; }
  /// Its arrays there, as far as they are the model's.
  kernels::BatchArrays device_batch() const;
  /// Rows of the input embedding: tokens [rows] and out [rows, hidden] are device memory.
  void embed(const std::int32_t* tokens, float* out, std::int64_t rows);

  const ModelConfig& config() const { return config_; }
  const ShardPlan& plan() const { return plan_; }

 private:
  struct Layer {
    kernels::Buffer attention_norm;  // [hidden]
    std::unique_ptr<parallel::ColumnParallelLinear> qkv;
    kernels::Buffer qkv_bias;  // [(query heads + 2 kv heads) * head_dim], or none
    std::unique_ptr<parallel::RowParallelLinear> attention_out;
    kernels::Buffer ffn_norm;  // [hidden]
    std::unique_ptr<parallel::ColumnParallelLinear> gate_up;
    std::unique_ptr<parallel::RowParallelLinear> down;
  };

  /// A batch's index arrays on the device.
  struct DeviceBatch {
    kernels::Buffer tokens, positions, rows, ancestors, page_table, sampled_rows;
  };

  Layer load_layer(const WeightReader& reader, const WeightFormats& formats, std::int64_t layer);
  kernels::Buffer load_vector(const WeightReader& reader, const std::string& name, std::int64_t n,
                              kernels::IndexRange range);
  void allocate_step_memory(const Limits& limits);
  void attention(Layer& layer, int index, parallel::ResidualStream& x, const kernels::KvPool& cache,
                 const PackedBatch& batch);
  void feed_forward(Layer& layer, parallel::ResidualStream& x, std::int64_t rows);
  parallel::RmsNorm norm(const kernels::Buffer& weight) const;

  ModelConfig config_;
  ShardPlan plan_;
  kernels::Backend& backend_;
  parallel::ExchangeWorkspace exchange_;
  std::vector<std::int32_t> kv_head_of_query_;
  float attention_scale_ = 0;  // 1 / sqrt(head_dim)
  kernels::AttentionMath attention_math_;

  std::unique_ptr<parallel::VocabParallelEmbedding> embedding_;
  std::vector<Layer> layers_;
  kernels::Buffer final_norm_;
  std::unique_ptr<parallel::VocabParallelLogits> output_;
  kernels::Buffer inv_freq_;  // [head_dim / 2]

  DeviceBatch batch_;
  kernels::PageTable page_table_;
  kernels::Buffer residual_;   // [M, hidden]: the residual stream
  kernels::Buffer qkv_;        // [M, (query heads + 2 kv heads) * head_dim]
  kernels::Buffer attended_;   // [M, query heads * head_dim]
  kernels::Buffer gate_up_;    // [M, 2 * FFN columns]
  kernels::Buffer cos_, sin_;  // [M, head_dim / 2]
  kernels::Buffer sampled_;    // [R, hidden]
  kernels::Buffer hidden_;     // [R, hidden]
  kernels::Buffer logits_;     // [R, vocab]
};

}  // namespace paceline::runtime
