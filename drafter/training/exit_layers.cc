#include "drafter/training/exit_layers.h"

#include "drafter/training/row_ops.h"

namespace paceline::drafter {

ExitLayers::ExitLayers(const DrafterConfig& config, std::size_t index, Gemm& gemm,
                       kernels::ThreadPool& pool)
    : config_(config),
      index_(index),
      gemm_(gemm),
      pool_(pool),
      exits_(config.num_draft_layers + 1),
      inner_(config.num_draft_layers) {}

Matrix ExitLayers::exit(std::size_t layer) const {
  return layer == 0 && !config_.has_input_projection() ? input_ : exits_[layer].matrix();
}

void ExitLayers::forward(const HeadTensors& head, ConstMatrix output, Matrix input, Matrix logits) {
  const std::vector<LinearTensors>& blocks = head.exits[index_].blocks;
  input_ = input;
  if (config_.has_input_projection()) {
    const Matrix x = exits_[0].resize(input.rows, config_.exit_dim);
    gemm_.multiply(input, transpose(head.input_proj.weight), x);
    add_bias(head.input_proj.bias, x, pool_);
  }
  for (std::size_t l = 0; l < inner_.size(); ++l) {
    const Matrix inner = inner_[l].resize(input.rows, config_.exit_dim);
    gemm_.multiply(exit(l), transpose(blocks[l].weight), inner);
    add_bias(blocks[l].bias, inner, pool_);
    add_silu(exit(l), inner, exits_[l + 1].resize(input.rows, config_.exit_dim), pool_);
  }
  gemm_.multiply(exit(inner_.size()), transpose(output), logits);
}

Matrix ExitLayers::backward(const HeadTensors& head, ConstMatrix output, ConstMatrix d_logits,
                            HeadTensors& gradients) {
  const std::vector<LinearTensors>& blocks = head.exits[index_].blocks;
  ExitTensors& own = gradients.exits[index_];
  if (own.output.data != nullptr) {
    gemm_.multiply_add(transpose(d_logits), exit(inner_.size()), own.output);
  }
  const Matrix d_exit = d_exit_.resize(d_logits.rows, config_.exit_dim);
  gemm_.multiply(d_logits, output, d_exit);
  for (std::size_t l = inner_.size(); l-- > 0;) {
    const Matrix d_inner = d_inner_.resize(d_logits.rows, config_.exit_dim);
    silu_gradient(inner_[l].matrix(), d_exit, d_inner, pool_);
    gemm_.multiply_add(transpose(d_inner), exit(l), own.blocks[l].weight);
    add_row_sum(d_inner, own.blocks[l].bias, pool_);
    gemm_.multiply_add(d_inner, blocks[l].weight, d_exit);
  }
  if (!config_.has_input_projection()) return d_exit;
  gemm_.multiply_add(transpose(d_exit), input_, gradients.input_proj.weight);
  add_row_sum(d_exit, gradients.input_proj.bias, pool_);
  const Matrix d_input = d_input_.resize(d_logits.rows, input_.cols);
  gemm_.multiply(d_exit, head.input_proj.weight, d_input);
  return d_input;
}

}  // namespace paceline::drafter
