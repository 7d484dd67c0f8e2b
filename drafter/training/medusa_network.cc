#include "drafter/training/medusa_network.h"

#include "drafter/training/row_ops.h"
#include "kernels/core/error.h"

namespace paceline::drafter {

MedusaNetwork::MedusaNetwork(const DrafterConfig& config, const LossOptions& loss,
                             ConstMatrix base_output, Gemm& gemm, kernels::ThreadPool& pool)
    : HeadNetwork(config, loss, base_output, gemm, pool) {
  if (loss.depth() != config.num_heads) {
    throw ConfigError("{} Medusa heads were to be trained to a depth of {}, expected one a depth",
                      config.num_heads, loss.depth());
  }
  for (std::int64_t head = 0; head < config.num_heads; ++head) {
    heads_.push_back({ExitLayers(config, head, gemm, pool), {}});
  }
}

void MedusaNetwork::forward(const HeadTensors& head, const TeacherRows& text, Matrix logits) {
  const ConstMatrix hidden = as_matrix(text.hidden, text.rows, config().hidden_size);
  for (std::size_t i = 0; i < heads_.size(); ++i) {
    const std::int64_t first = pairs().step_begins()[i];
    const std::int64_t count = pairs().step_begins()[i + 1] - first;
    if (count == 0) continue;
    const Matrix in = heads_[i].hidden.resize(count, config().hidden_size);
    gather_rows(hidden, pairs().hidden_rows().subspan(first, count), in, pool());
    heads_[i].exit.forward(head, output_of(head, i), in, logits.row_block(first, count));
  }
}

void MedusaNetwork::backward(const HeadTensors& head, ConstMatrix d_logits,
                             HeadTensors& gradients) {
  for (std::size_t i = 0; i < heads_.size(); ++i) {
    const std::int64_t first = pairs().step_begins()[i];
    const std::int64_t count = pairs().step_begins()[i + 1] - first;
    if (count == 0) continue;
    heads_[i].exit.backward(head, output_of(head, i), d_logits.row_block(first, count), gradients);
  }
}

}  // namespace paceline::drafter
