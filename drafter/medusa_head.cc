#include "drafter/medusa_head.h"

#include "kernels/core/device_memory.h"

namespace paceline::drafter {

MedusaHead::MedusaHead(const DrafterConfig& config, const WeightSource& weights,
                       kernels::Backend& backend)
    : config_(config), backend_(backend) {
  const std::int64_t outputs = config_.tied_head ? 1 : config_.num_heads;
  for (std::int64_t head = 0; head < config_.num_heads; ++head) {
    blocks_.emplace_back(config_, head, weights, backend);
    if (head >= outputs) continue;
    outputs_.emplace_back(
        HeadLinearShape{output_name(config_, head), config_.num_outputs(), config_.exit_dim, false},
        weights, backend);
  }
}

const float* MedusaHead::logits(std::int64_t head, const float* hidden,
                                const std::int32_t* hidden_row, std::int64_t rows) {
  const std::int64_t width = config_.hidden_size;
  float* x = kernels::reserve<float>(backend_, exit_, rows * width);
  backend_.gather_rows({.in = hidden, .index = hidden_row, .out = x, .rows = rows, .width = width});
  blocks_[head].forward(x, kernels::reserve<float>(backend_, inner_, rows * width), rows);
  float* logits = kernels::reserve<float>(backend_, logits_, rows * config_.num_outputs());
  outputs_[config_.tied_head ? 0 : head].multiply(x, logits, rows);
  return logits;
}

}  // namespace paceline::drafter
