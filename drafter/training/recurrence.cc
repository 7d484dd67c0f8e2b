#include "drafter/training/recurrence.h"

#include <algorithm>

#include "drafter/training/row_ops.h"

namespace paceline::drafter {
namespace {

void add(ConstMatrix in, Matrix out) {
  for (std::int64_t r = 0; r < in.rows; ++r) {
    const std::span<const float> from = in.row(r);
    const std::span<float> to = out.row(r);
    for (std::int64_t c = 0; c < in.cols; ++c) to[c] += from[c];
  }
}

}  // namespace

Matrix Recurrence::forward(const HeadTensors& head, const RecurrenceInputs& inputs) {
  const std::int64_t rows = std::ssize(inputs.token);
  const std::int64_t n = inputs.positions;
  const Matrix states = states_.resize(rows, config_.hidden_size);
  if (!config_.rnn) {
    gather_rows(inputs.embeddings, inputs.token, states, pool_);
    for (std::int64_t at = n; at < rows; at += n) {
      add(states.row_block(at - n, n), states.row_block(at, n));
    }
    return states;
  }
  const Matrix before = before_.resize(rows, config_.hidden_size);
  const Matrix from_token = from_token_.resize(inputs.embeddings.rows, config_.hidden_size);
  gemm_.multiply(inputs.embeddings, transpose(head.rnn_w.weight), from_token);
  gather_rows(from_token, inputs.token, before, pool_);
  add_bias(head.rnn_u.bias, before, pool_);
  for (std::int64_t at = 0; at < rows; at += n) {
    const Matrix step = before.row_block(at, n);
    if (at > 0) {
      gemm_.multiply_add(states.row_block(at - n, n), transpose(head.rnn_u.weight), step);
    }
    silu(step, states.row_block(at, n), pool_);
  }
  return states;
}

void Recurrence::backward(const HeadTensors& head, const RecurrenceInputs& inputs, Matrix d_states,
                          HeadTensors& gradients) {
  if (!config_.rnn) return;  // nothing here is trained
  const std::int64_t rows = d_states.rows;
  const std::int64_t n = inputs.positions;
  const Matrix before = before_.matrix();
  for (std::int64_t at = rows - n; at >= 0; at -= n) {
    const Matrix step = d_states.row_block(at, n);
    silu_gradient(before.row_block(at, n), step, step, pool_);
    if (at > 0) gemm_.multiply_add(step, head.rnn_u.weight, d_states.row_block(at - n, n));
  }
  const Matrix d_before = d_states;
  add_row_sum(d_before, gradients.rnn_u.bias, pool_);
  gemm_.multiply_add(transpose(d_before.row_block(n, rows - n)),
                     states_.matrix().row_block(0, rows - n), gradients.rnn_u.weight);
  const Matrix d_from_token =
      d_from_token_.resize_to_zero(inputs.embeddings.rows, config_.hidden_size);
  scatter_add_rows(d_before, inputs.token, d_from_token, pool_);
  gemm_.multiply_add(transpose(d_from_token), inputs.embeddings, gradients.rnn_w.weight);
}

}  // namespace paceline::drafter
