#include "runtime/model/llama.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/device_memory.h"
#include "kernels/core/error.h"

namespace paceline::runtime {

using kernels::Buffer;
using kernels::IndexRange;
using kernels::MatrixSource;

namespace {

IndexRange scaled(IndexRange range, std::int64_t unit) {
  return {range.begin * unit, range.end * unit};
}

}  // namespace

LlamaModel::LlamaModel(const ModelConfig& config, const Checkpoint& checkpoint,
                       const ShardPlan& plan, const WeightFormats& formats, const Limits& limits,
                       kernels::Backend& backend, parallel::Communicator& communicator,
                       kernels::AttentionMath attention_math)
    : config_(config),
      plan_(plan),
      backend_(backend),
      exchange_(backend, communicator, plan.virtual_shards),
      kv_head_of_query_(plan.kv_head_of_query()),
      attention_scale_(1.0f / std::sqrt(static_cast<float>(config.head_dim))),
      attention_math_(attention_math) {
  const WeightReader reader(checkpoint, config_);
  const std::int64_t hidden = config_.hidden_size;
  const auto vocabulary_matrix = [&](const std::string& name) {
    return std::shared_ptr<kernels::PackedMatrix>(backend_.pack(
        reader.rows(name, config_.vocab_size, hidden, plan_.vocabulary, formats.vocabulary),
        kernels::Reduction::whole(hidden)));
  };
  const auto table = vocabulary_matrix("model.embed_tokens");
  checkpoint.release_memory();
  embedding_ =
      std::make_unique<parallel::VocabParallelEmbedding>(exchange_, table, config_.vocab_size);
  for (std::int64_t layer = 0; layer < config_.num_layers; ++layer) {
    layers_.push_back(load_layer(reader, formats, layer));
    checkpoint.release_memory();
  }
  final_norm_ = load_vector(reader, "model.norm.weight", hidden, {0, hidden});
  output_ = std::make_unique<parallel::VocabParallelLogits>(
      exchange_, config_.tie_word_embeddings ? table : vocabulary_matrix("lm_head"),
      config_.vocab_size);

  const std::vector<float> frequencies = rope_inv_freq(config_.rope, config_.head_dim);
  inv_freq_ = backend_.allocate(frequencies.size() * sizeof(float));
  backend_.upload(inv_freq_.as<void>(), frequencies.data(), inv_freq_.bytes());
  allocate_step_memory(limits);
  backend_.synchronize();  // what the device did wrong on the way comes out here
}

// The rows of q, k and v (of gate and up) that this rank keeps are stacked into one matrix each, so
// that a layer has four products.
LlamaModel::Layer LlamaModel::load_layer(const WeightReader& reader, const WeightFormats& formats,
                                         std::int64_t index) {
  const std::string prefix = fmt::format("model.layers.{}.", index);
  const std::int64_t hidden = config_.hidden_size;
  const IndexRange q = scaled(plan_.query_heads, config_.head_dim);
  const IndexRange kv = scaled(plan_.kv_heads, config_.head_dim);
  const auto rows = [&](const char* name, std::int64_t n, IndexRange range) {
    return reader.rows(prefix + name, n, hidden, range, formats.linear);
  };
  const auto row_parallel = [&](const char* name, std::int64_t k, IndexRange cols,
                                std::span<const IndexRange> dealt, std::int64_t unit) {
    return std::make_unique<parallel::RowParallelLinear>(
        exchange_, reader.cols(prefix + name, hidden, k, cols, formats.linear),
        parallel::local_ranges(dealt, plan_.shards, unit), static_cast<int>(plan_.shards.begin));
  };

  Layer layer;
  layer.attention_norm =
      load_vector(reader, prefix + "input_layernorm.weight", hidden, {0, hidden});
  layer.qkv = std::make_unique<parallel::ColumnParallelLinear>(
      backend_, kernels::concat_rows({rows("self_attn.q_proj", config_.q_width(), q),
                                      rows("self_attn.k_proj", config_.kv_width(), kv),
                                      rows("self_attn.v_proj", config_.kv_width(), kv)}));
  if (config_.qkv_bias) {
    std::vector<float> bias = reader.vector(prefix + "self_attn.q_proj.bias", config_.q_width(), q);
    for (const char* name : {"self_attn.k_proj.bias", "self_attn.v_proj.bias"}) {
      const std::vector<float> part = reader.vector(prefix + name, config_.kv_width(), kv);
      bias.insert(bias.end(), part.begin(), part.end());
    }
    layer.qkv_bias = backend_.allocate(bias.size() * sizeof(float));
    backend_.upload(layer.qkv_bias.as<void>(), bias.data(), bias.size() * sizeof(float));
  }
  layer.attention_out =
      row_parallel("self_attn.o_proj", config_.q_width(), q, plan_.heads, config_.head_dim);
  layer.ffn_norm =
      load_vector(reader, prefix + "post_attention_layernorm.weight", hidden, {0, hidden});
  layer.gate_up = std::make_unique<parallel::ColumnParallelLinear>(
      backend_,
      kernels::concat_rows({rows("mlp.gate_proj", config_.intermediate_size, plan_.ffn_cols),
                            rows("mlp.up_proj", config_.intermediate_size, plan_.ffn_cols)}));
  layer.down =
      row_parallel("mlp.down_proj", config_.intermediate_size, plan_.ffn_cols, plan_.ffn, 1);
  return layer;
}

Buffer LlamaModel::load_vector(const WeightReader& reader, const std::string& name, std::int64_t n,
                               IndexRange range) {
  const std::vector<float> values = reader.vector(name, n, range);
  Buffer buffer = backend_.allocate(values.size() * sizeof(float));
  backend_.upload(buffer.as<void>(), values.data(), values.size() * sizeof(float));
  return buffer;
}

void LlamaModel::allocate_step_memory(const Limits& limits) {
  const auto floats = [&](std::int64_t rows, std::int64_t width) {
    return backend_.allocate(static_cast<std::size_t>(rows * width) * sizeof(float));
  };
  const std::int64_t heads = plan_.query_heads.size() + 2 * plan_.kv_heads.size();
  residual_ = floats(limits.max_rows, config_.hidden_size);
  qkv_ = floats(limits.max_rows, heads * config_.head_dim);
  attended_ = floats(limits.max_rows, plan_.query_heads.size() * config_.head_dim);
  gate_up_ = floats(limits.max_rows, 2 * plan_.ffn_cols.size());
  cos_ = floats(limits.max_rows, config_.head_dim / 2);
  sin_ = floats(limits.max_rows, config_.head_dim / 2);
  sampled_ = floats(limits.max_sampled, config_.hidden_size);
  hidden_ = floats(limits.max_sampled, config_.hidden_size);
  logits_ = floats(limits.max_sampled, config_.vocab_size);
}

void LlamaModel::upload(const PackedBatch& batch) {
  const auto copy = [&](const auto& host, Buffer& device) {
    kernels::upload<typename std::decay_t<decltype(host)>::value_type>(backend_, device, host);
  };
  copy(batch.tokens, batch_.tokens);
  copy(batch.positions, batch_.positions);
  copy(batch.rows, batch_.rows);
  copy(batch.ancestors, batch_.ancestors);
  copy(batch.page_table, batch_.page_table);
  copy(batch.sampled_rows, batch_.sampled_rows);
  page_table_ = {batch_.page_table.as<std::int32_t>(), batch.page_stride};
}

kernels::BatchArrays LlamaModel::device_batch() const {
  return {.tokens = batch_.tokens.as<std::int32_t>(),
          .positions = batch_.positions.as<std::int32_t>(),
          .rows_at = batch_.rows.as<kernels::RowPlace>(),
          .ancestors = batch_.ancestors.as<std::int32_t>()};
}

parallel::RmsNorm LlamaModel::norm(const Buffer& weight) const {
  return {weight.as<float>(), static_cast<float>(config_.rms_norm_eps)};
}

// x += W_o attention(rope(W_q norm(x)), rope(W_k norm(x)), W_v norm(x))
void LlamaModel::attention(Layer& layer, int index, parallel::ResidualStream& x,
                           const kernels::KvPool& cache, const PackedBatch& batch) {
  const std::int64_t rows = batch.size();
  const int heads = static_cast<int>(plan_.query_heads.size());
  layer.qkv->forward(x, norm(layer.attention_norm), qkv_.as<float>(), rows);
  backend_.rope_append({.qkv = qkv_.as<float>(),
                        .bias = layer.qkv_bias.as<float>(),
                        .cos = cos_.as<float>(),
                        .sin = sin_.as<float>(),
                        .kv = cache,
                        .layer = index,
                        .num_heads = heads,
                        .rows_at = batch_.rows.as<kernels::RowPlace>(),
                        .page_table = page_table_,
                        .rows = rows});
  backend_.attention({.qkv = qkv_.as<float>(),
                      .qkv_stride = (heads + 2 * cache.num_heads) * config_.head_dim,
                      .kv = cache,
                      .layer = index,
                      .num_heads = heads,
                      .kv_head = kv_head_of_query_.data(),
                      .scale = attention_scale_,
                      .rows_at = batch_.rows.as<kernels::RowPlace>(),
                      .ancestors = batch_.ancestors.as<std::int32_t>(),
                      .page_table = page_table_,
                      .out = attended_.as<float>(),
                      .rows = rows,
                      .math = attention_math_});
  layer.attention_out->add(attended_.as<float>(), x, rows);
}

// x += W_down (silu(W_gate norm(x)) * W_up norm(x))
void LlamaModel::feed_forward(Layer& layer, parallel::ResidualStream& x, std::int64_t rows) {
  layer.gate_up->forward(x, norm(layer.ffn_norm), gate_up_.as<float>(), rows);
  layer.down->add_gated(gate_up_.as<float>(), x, rows);
}

const float* LlamaModel::forward(const PackedBatch& batch, const kernels::KvPool& cache) {
  upload(batch);
  if (!stays_on_device()) return compute(batch, cache);
  backend_.repeat(sizes(batch, cache), [&] { compute(batch, cache); });
  return hidden_.as<float>();
}

// Of the batch only its sizes are parameters; the rest is read on the device.
std::vector<std::int64_t> LlamaModel::sizes(const PackedBatch& batch,
                                            const kernels::KvPool& cache) const {
  return {reinterpret_cast<std::intptr_t>(this), reinterpret_cast<std::intptr_t>(cache.data),
          batch.size(), std::ssize(batch.sampled_rows), batch.page_stride};
}

const float* LlamaModel::compute(const PackedBatch& batch, const kernels::KvPool& cache) {
  const std::int64_t rows = batch.size();
  const auto sampled = static_cast<std::int64_t>(batch.sampled_rows.size());
  backend_.rope_table({.positions = batch_.positions.as<std::int32_t>(),
                       .inv_freq = inv_freq_.as<float>(),
                       .cos = cos_.as<float>(),
                       .sin = sin_.as<float>(),
                       .rows = rows,
                       .head_dim = static_cast<int>(config_.head_dim)});
  embedding_->forward(batch_.tokens.as<std::int32_t>(), residual_.as<float>(), rows);
  parallel::ResidualStream x{residual_.as<float>()};
  for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
    attention(layers_[layer], static_cast<int>(layer), x, cache, batch);
    feed_forward(layers_[layer], x, rows);
  }
  exchange_.settle(x, rows * config_.hidden_size);
  backend_.gather_rows({.in = residual_.as<float>(),
                        .index = batch_.sampled_rows.as<std::int32_t>(),
                        .out = sampled_.as<float>(),
                        .rows = sampled,
                        .width = config_.hidden_size});
  const parallel::RmsNorm last = norm(final_norm_);
  backend_.rms_norm({.in = sampled_.as<float>(),
                     .weight = last.weight,
                     .eps = last.eps,
                     .out = hidden_.as<float>(),
                     .rows = sampled,
                     .width = config_.hidden_size});
  return hidden_.as<float>();
}

void LlamaModel::embed(const std::int32_t* tokens, float* out, std::int64_t rows) {
  embedding_->forward(tokens, out, rows);
}

const float* LlamaModel::logits(const float* hidden, std::int64_t rows) {
  output_->forward(hidden, logits_.as<float>(), rows);
  return logits_.as<float>();
}

const float* LlamaModel::part_of_logits(const float* hidden, std::int64_t rows) {
  output_->forward_part(hidden, logits_.as<float>(), rows);
  return logits_.as<float>();
}

void LlamaModel::largest(const float* part, std::int32_t* tokens, std::int64_t rows) {
  output_->largest(part, tokens, rows);
}

}  // namespace paceline::runtime
