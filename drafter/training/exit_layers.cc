#include "drafter/training/exit_layers.h"

#include "drafter/training/row_ops.h"

namespace paceline::drafter {

ExitLayers::ExitLayers(const DrafterConfig& config, Gemm& gemm, kernels::ThreadPool& pool)
    : config_(config),
      gemm_(gemm),
      pool_(pool),
      exits_(config.num_draft_layers + 1),
      inner_(config.num_draft_layers) {}

Matrix ExitLayers::exit(std::size_t layer) const {
  return layer == 0 && !config_.has_input_projection() ? joined_ : exits_[layer].matrix();
}

Matrix ExitLayers::forward(const HeadTensors& head, ConstMatrix output, Matrix joined) {
  joined_ = joined;
  if (config_.has_input_projection()) {
    const Matrix x = exits_[0].resize(joined.rows, config_.exit_dim);
    gemm_.multiply(joined, transpose(head.input_proj.weight), x);
    add_bias(head.input_proj.bias, x, pool_);
  }
  for (std::size_t l = 0; l < inner_.size(); ++l) {
    const Matrix inner = inner_[l].resize(joined.rows, config_.exit_dim);
    gemm_.multiply(exit(l), transpose(head.blocks[l].weight), inner);
    add_bias(head.blocks[l].bias, inner, pool_);
    add_silu(exit(l), inner, exits_[l + 1].resize(joined.rows, config_.exit_dim), pool_);
  }
  const Matrix logits = logits_.resize(joined.rows, output.rows);
  gemm_.multiply(exit(inner_.size()), transpose(output), logits);
  return logits;
}

Matrix ExitLayers::backward(const HeadTensors& head, ConstMatrix output, Matrix d_logits,
                            HeadTensors& gradients) {
  if (gradients.output.data != nullptr) {
    gemm_.multiply_add(transpose(d_logits), exit(inner_.size()), gradients.output);
  }
  const Matrix d_exit = d_exit_.resize(d_logits.rows, config_.exit_dim);
  gemm_.multiply(d_logits, output, d_exit);
  for (std::size_t l = inner_.size(); l-- > 0;) {
    const Matrix d_inner = d_inner_.resize(d_logits.rows, config_.exit_dim);
    silu_gradient(inner_[l].matrix(), d_exit, d_inner, pool_);
    gemm_.multiply_add(transpose(d_inner), exit(l), gradients.blocks[l].weight);
    add_row_sum(d_inner, gradients.blocks[l].bias, pool_);
    gemm_.multiply_add(d_inner, head.blocks[l].weight, d_exit);
  }
  if (!config_.has_input_projection()) return d_exit;
  gemm_.multiply_add(transpose(d_exit), joined_, gradients.input_proj.weight);
  add_row_sum(d_exit, gradients.input_proj.bias, pool_);
  const Matrix d_joined = d_joined_.resize(d_logits.rows, joined_.cols);
  gemm_.multiply(d_exit, head.input_proj.weight, d_joined);
  return d_joined;
}

}  // namespace paceline::drafter
