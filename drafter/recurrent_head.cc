#include "drafter/recurrent_head.h"

#include "kernels/core/device_memory.h"

namespace paceline::drafter {

RecurrentHead::RecurrentHead(const DrafterConfig& config, const WeightSource& weights,
                             kernels::Backend& backend)
    : config_(config),
      backend_(backend),
      blocks_(config, 0, weights, backend),
      output_({output_name(config, 0), config.num_outputs(), config.exit_dim, false}, weights,
              backend) {
  const std::int64_t hidden = config_.hidden_size;
  if (config_.rnn) {
    rnn_w_.emplace(HeadLinearShape{"rnn_w", hidden, hidden, false}, weights, backend);
    rnn_u_.emplace(HeadLinearShape{"rnn_u", hidden, hidden, true}, weights, backend);
  }
  if (config_.has_input_projection()) {
    input_.emplace(HeadLinearShape{"input_proj", config_.exit_dim, 2 * hidden, true}, weights,
                   backend);
  }
}

void RecurrentHead::advance(const float* embedded, const float* previous, float* state,
                            std::int64_t rows) {
  const std::int64_t width = config_.hidden_size;
  if (!config_.rnn) {
    backend_.activate(
        {.in = embedded, .addend = previous, .out = state, .rows = rows, .width = width});
    return;
  }
  float* from_token = kernels::reserve<float>(backend_, from_token_, rows * width);
  float* from_state = nullptr;
  rnn_w_->multiply(embedded, from_token, rows);
  if (previous != nullptr) {
    from_state = kernels::reserve<float>(backend_, from_state_, rows * width);
    rnn_u_->multiply(previous, from_state, rows);
  }
  backend_.activate({.in = from_token,
                     .addend = from_state,
                     .bias = rnn_u_->bias(),
                     .activation = kernels::Activation::kSilu,
                     .out = state,
                     .rows = rows,
                     .width = width});
}

const float* RecurrentHead::logits(const float* hidden, const std::int32_t* hidden_row,
                                   const float* state, std::int64_t rows) {
  const std::int64_t width = config_.exit_dim;
  float* x = kernels::reserve<float>(backend_, joined_, rows * 2 * config_.hidden_size);
  backend_.join_rows({.left = hidden,
                      .left_index = hidden_row,
                      .right = state,
                      .out = x,
                      .rows = rows,
                      .left_width = config_.hidden_size,
                      .right_width = config_.hidden_size});
  if (config_.has_input_projection()) {
    float* projected = kernels::reserve<float>(backend_, exit_, rows * width);
    input_->multiply(x, projected, rows);
    backend_.activate(
        {.in = projected, .bias = input_->bias(), .out = projected, .rows = rows, .width = width});
    x = projected;
  }
  blocks_.forward(x, kernels::reserve<float>(backend_, inner_, rows * width), rows);
  float* logits = kernels::reserve<float>(backend_, logits_, rows * config_.num_outputs());
  output_.multiply(x, logits, rows);
  return logits;
}

}  // namespace paceline::drafter
