#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/api.h"
#include "runtime/engine/kv_cache.h"
#include "runtime/engine/packed_batch.h"
#include "runtime/model/llama.h"

namespace paceline::runtime {

/// A text whose hidden states are wanted: of its rows from `first_row` on.
struct FedText {
  std::span<const std::int32_t> tokens;
  std::int32_t first_row = 0;
};

/// Feeds whole texts to a model for their hidden states, in packed batches of rows of several
/// texts, without logits. The same bits as the engine's steps give. Every rank of the model's
/// communicator makes the same calls.
class HiddenStates {
 public:
  /// At most `rows_at_once` rows go through the model at once: the limits that it was made with.
  /// The cache must hold the longest text and be free of others. All must outlive it.
  HiddenStates(LlamaModel& model, kernels::Backend& backend, const KvCache& cache,
               std::int32_t rows_at_once)
      : model_(model), backend_(backend), cache_(cache), rows_at_once_(rows_at_once) {}

  /// Appends the wanted rows' hidden states after the final norm, text after text, to `hidden`.
  void append(std::span<const FedText> texts, std::vector<float>& hidden);

  /// Appends the input embedding of `tokens` to `rows`.
  void append_embedding(std::span<const std::int32_t> tokens, std::vector<float>& rows);

  std::size_t hidden_size() const { return static_cast<std::size_t>(model_.config().hidden_size); }

 private:
  LlamaModel& model_;
  kernels::Backend& backend_;
  const KvCache& cache_;
  std::int32_t rows_at_once_;
  PackedBatch batch_;
  kernels::Buffer tokens_, embedded_;
};

}  // namespace paceline::runtime
