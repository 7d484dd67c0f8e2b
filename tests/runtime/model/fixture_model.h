#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/api.h"
#include "parallel/communicator.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/kv_cache.h"
#include "runtime/files/json.h"
#include "runtime/model/llama.h"

namespace paceline::runtime {

/// One of the tiny checkpoints in tests/data/models, made by tools/make_model_fixtures.py; or, if
/// `name` is an absolute path, another one.
inline std::filesystem::path fixture_dir(const std::string& name) {
  return std::filesystem::path(PACELINE_TEST_DATA) / "models" / name;
}

/// A whole rank around a tiny checkpoint: what a test of the model or the engine needs.
class FixtureRank {
 public:
  struct Options {
    WeightChoice weights = WeightChoice::kAuto;
    kernels::KvFormat kv = kernels::KvFormat::kFp32;
    kernels::AttentionMath attention = kernels::AttentionMath::kFp32;
    int virtual_shards = 8;
    SchedulerLimits limits{
        .max_sequences = 8, .max_rows = 512, .page_size = kPageSize, .num_pages = 64};
  };

  FixtureRank(const std::string& name, const Options& options, kernels::Backend& backend,
              parallel::Communicator& communicator, Drafting drafting = {})
      : config_(read_model_config(fixture_dir(name))),
        checkpoint_(Checkpoint::open(fixture_dir(name))),
        formats_(choose_formats(checkpoint_, config_, options.weights)),
        plan_(plan_shards(config_, formats_, options.virtual_shards, communicator.size(),
                          communicator.rank())),
        cache_(config_, plan_, options.kv, options.limits.num_pages, backend),
        model_(config_, checkpoint_, plan_, formats_,
               {.max_rows = options.limits.max_rows, .max_sampled = options.limits.max_rows},
               backend, communicator, options.attention),
        engine_(model_, backend, communicator, options.limits, cache_.pool(),
                {.terminate = [] { return false; }, .enter_phase = [](std::string_view) {}},
                drafting) {}

  LlamaModel& model() { return model_; }
  const ModelConfig& config() const { return config_; }
  const KvCache& cache() const { return cache_; }
  Engine& engine() { return engine_; }

 private:
  ModelConfig config_;
  Checkpoint checkpoint_;
  WeightFormats formats_;
  ShardPlan plan_;
  KvCache cache_;
  LlamaModel model_;
  Engine engine_;
};

/// Each request's tokens, by uid.
using Answers = std::map<std::uint64_t, std::vector<std::int32_t>>;

/// Admits all requests at once and runs them to their end; `before_step` may add to what the engine
/// is told.
inline Answers run_to_end(
    Engine& engine, const std::vector<EngineRequest>& admitted,
    const std::function<void(Control&)>& before_step = [](Control&) {}) {
  Answers answers;
  Control control;
  control.admit = admitted;
  do {
    before_step(control);
    for (const TokenEvent& event : engine.step(control)) answers[event.uid].push_back(event.token);
    control = {};
  } while (!engine.idle());
  return answers;
}

/// Rows [begin, end) of a sequence that is alone in the cache, on pages 0, 1, ...; logits for all.
inline PackedBatch rows_of(const std::vector<std::int32_t>& ids, std::int32_t begin,
                           std::int32_t end) {
  PackedBatch batch;
  for (std::int32_t position = begin; position < end; ++position) {
    batch.tokens.push_back(ids[static_cast<std::size_t>(position)]);
    batch.positions.push_back(position);
    batch.rows.push_back({0, position, position, position + 1, 0});
    batch.sampled_rows.push_back(position - begin);
  }
  batch.page_stride = static_cast<std::int64_t>(ids.size()) / kPageSize + 1;
  for (std::int32_t page = 0; page < batch.page_stride; ++page) batch.page_table.push_back(page);
  return batch;
}

/// Logits [ids.size(), vocab] of a sequence fed in chunks.
inline std::vector<float> sequence_logits(FixtureRank& rank, kernels::Backend& backend,
                                          const std::vector<std::int32_t>& ids,
                                          std::int32_t chunk) {
  std::vector<float> logits;
  const auto vocab = static_cast<std::size_t>(rank.model().config().vocab_size);
  const auto length = static_cast<std::int32_t>(ids.size());
  for (std::int32_t begin = 0; begin < length; begin += chunk) {
    const std::int32_t end = std::min(length, begin + chunk);
    const auto rows = static_cast<std::size_t>(end - begin);
    const float* hidden = rank.model().forward(rows_of(ids, begin, end), rank.cache().pool());
    const float* of_chunk = rank.model().logits(hidden, end - begin);
    logits.resize(logits.size() + rows * vocab);
    backend.download(logits.data() + logits.size() - rows * vocab, of_chunk,
                     rows * vocab * sizeof(float));
  }
  return logits;
}

}  // namespace paceline::runtime
