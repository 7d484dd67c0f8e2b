#include "drafter/recurrent_head.h"

#include <fmt/format.h>

#include "kernels/core/device_memory.h"
#include "kernels/core/error.h"

namespace paceline::drafter {

using kernels::Activation;

RecurrentHead::RecurrentHead(const DrafterConfig& config, const WeightSource& weights,
                             kernels::Backend& backend)
    : config_(config), backend_(backend) {
  const std::int64_t hidden = config_.hidden_size;
  const std::int64_t exit = config_.exit_dim;
  if (config_.rnn) {
    rnn_w_ = load(weights, "rnn_w", hidden, hidden, false);
    rnn_u_ = load(weights, "rnn_u", hidden, hidden, true);
  }
  if (config_.has_input_projection()) input_ = load(weights, "input_proj", exit, 2 * hidden, true);
  for (std::int64_t i = 0; i < config_.num_draft_layers; ++i) {
    blocks_.push_back(load(weights, fmt::format("lm_head.{}.linear", i), exit, exit, true));
  }
  output_ = load(weights, fmt::format("lm_head.{}", config_.num_draft_layers),
                 config_.num_outputs(), exit, false);
}

RecurrentHead::Linear RecurrentHead::load(const WeightSource& weights, const std::string& name,
                                          std::int64_t n, std::int64_t k, bool with_bias) {
  const kernels::HostMatrix matrix = weights.matrix(name, n, k);
  check(matrix.rows == n && matrix.cols == k, "matrix {} is [{}, {}], expected [{}, {}]", name,
        matrix.rows, matrix.cols, n, k);
  Linear linear;
  linear.weight = backend_.pack(matrix, kernels::Reduction::whole(k));
  if (with_bias) {
    const std::vector<float> bias = weights.vector(name + ".bias", n);
    kernels::upload<float>(backend_, linear.bias, bias);
  }
  return linear;
}

void RecurrentHead::multiply(const Linear& linear, const float* in, float* out, std::int64_t rows) {
  backend_.linear({.weight = linear.weight.get(), .in = in, .out = out, .rows = rows});
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
  multiply(rnn_w_, embedded, from_token, rows);
  if (previous != nullptr) {
    from_state = kernels::reserve<float>(backend_, from_state_, rows * width);
    multiply(rnn_u_, previous, from_state, rows);
  }
  backend_.activate({.in = from_token,
                     .addend = from_state,
                     .bias = rnn_u_.bias.as<float>(),
                     .activation = Activation::kSilu,
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
    multiply(input_, x, projected, rows);
    backend_.activate({.in = projected,
                       .bias = input_.bias.as<float>(),
                       .out = projected,
                       .rows = rows,
                       .width = width});
    x = projected;
  }
  float* inner = kernels::reserve<float>(backend_, inner_, rows * width);
  for (const Linear& block : blocks_) {
    multiply(block, x, inner, rows);
    backend_.activate({.in = inner,
                       .bias = block.bias.as<float>(),
                       .residual = x,
                       .activation = Activation::kSilu,
                       .out = x,
                       .rows = rows,
                       .width = width});
  }
  float* logits = kernels::reserve<float>(backend_, logits_, rows * config_.num_outputs());
  multiply(output_, x, logits, rows);
  return logits;
}

}  // namespace paceline::drafter
