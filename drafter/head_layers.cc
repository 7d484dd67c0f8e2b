#include "drafter/head_layers.h"

#include "kernels/core/device_memory.h"
#include "kernels/core/error.h"

namespace paceline::drafter {

HeadLinear::HeadLinear(const HeadLinearShape& shape, const WeightSource& weights,
                       kernels::Backend& backend)
    : backend_(backend) {
  const kernels::MatrixSource matrix = weights.matrix(shape.name, shape.n, shape.k);
  check(matrix.rows() == shape.n && matrix.cols() == shape.k,
        "matrix {} is [{}, {}], expected [{}, {}]", shape.name, matrix.rows(), matrix.cols(),
        shape.n, shape.k);
  weight_ = backend_.pack(matrix, kernels::Reduction::whole(shape.k));
  if (shape.bias) {
    const std::vector<float> bias = weights.vector(shape.name + ".bias", shape.n);
    kernels::upload<float>(backend_, bias_, bias);
  }
}

void HeadLinear::multiply(const float* in, float* out, std::int64_t rows) const {
  backend_.linear({.weight = weight_.get(), .in = in, .out = out, .rows = rows});
}

ResidualBlocks::ResidualBlocks(const DrafterConfig& config, std::int64_t head,
                               const WeightSource& weights, kernels::Backend& backend)
    : width_(config.exit_dim), backend_(backend) {
  for (std::int64_t layer = 0; layer < config.num_draft_layers; ++layer) {
    blocks_.emplace_back(HeadLinearShape{block_name(config, head, layer), width_, width_, true},
                         weights, backend);
  }
}

void ResidualBlocks::forward(float* x, float* inner, std::int64_t rows) const {
  for (const HeadLinear& block : blocks_) {
    block.multiply(x, inner, rows);
    backend_.activate({.in = inner,
                       .bias = block.bias(),
                       .residual = x,
                       .activation = kernels::Activation::kSilu,
                       .out = x,
                       .rows = rows,
                       .width = width_});
  }
}

}  // namespace paceline::drafter
