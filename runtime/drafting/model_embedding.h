#pragma once

#include <cstdint>

#include "drafter/weights.h"
#include "runtime/model/llama.h"

namespace paceline::runtime {

/// The embedding that a drafter shares with its model.
class ModelEmbedding final : public drafter::TokenEmbedding {
 public:
  /// The model must outlive it.
  explicit ModelEmbedding(LlamaModel& model) : model_(model) {}
  void forward(const std::int32_t* tokens, float* out, std::int64_t rows) override {
    model_.embed(tokens, out, rows);
  }
  bool stays_on_device() const override { return model_.stays_on_device(); }

 private:
  LlamaModel& model_;
};

}  // namespace paceline::runtime
