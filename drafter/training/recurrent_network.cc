#include "drafter/training/recurrent_network.h"

#include "drafter/training/row_ops.h"

namespace paceline::drafter {
namespace {

/// Columns [first, first + count).
Matrix columns(Matrix matrix, std::int64_t first, std::int64_t count) {
  return {matrix.data + first, matrix.rows, count, matrix.stride};
}

}  // namespace

RecurrentNetwork::RecurrentNetwork(const DrafterConfig& config, const LossOptions& loss,
                                   ConstMatrix base_output, Gemm& gemm, kernels::ThreadPool& pool)
    : HeadNetwork(config, loss, base_output, gemm, pool),
      recurrence_(config, gemm, pool),
      exit_(config, 0, gemm, pool) {}

void RecurrentNetwork::lay_out_tokens(const TeacherRows& text) {
  read_.clear(text.rows);
  read_slots_.clear();
  for (std::int32_t step = 0; step < loss().depth(); ++step) {
    for (const DraftPosition& position : pairs().active()) {
      // After a position's last step some token: nothing depends on that state, nor on later ones.
      read_slots_.push_back(step < position.steps ? read_.slot(position.row + step) : 0);
    }
  }
}

void RecurrentNetwork::forward(const HeadTensors& head, const TeacherRows& text, Matrix logits) {
  const std::int64_t hidden = config().hidden_size;
  lay_out_tokens(text);
  const Matrix embeddings = read_embeddings_.resize(std::ssize(read_.rows), hidden);
  gather_rows(as_matrix(text.next_embedding, text.rows, hidden), read_.rows, embeddings, pool());
  inputs_ = {embeddings, read_slots_, std::ssize(pairs().active())};
  const Matrix states = recurrence_.forward(head, inputs_);

  const Matrix joined = joined_.resize(pairs().size(), 2 * hidden);
  gather_rows(as_matrix(text.hidden, text.rows, hidden), pairs().hidden_rows(),
              columns(joined, 0, hidden), pool());
  gather_rows(states, pairs().places(), columns(joined, hidden, hidden), pool());
  exit_.forward(head, output_of(head, 0), joined, logits);
}

void RecurrentNetwork::backward(const HeadTensors& head, ConstMatrix d_logits,
                                HeadTensors& gradients) {
  const std::int64_t hidden = config().hidden_size;
  const Matrix d_joined = exit_.backward(head, output_of(head, 0), d_logits, gradients);
  const Matrix d_states = d_states_.resize_to_zero(std::ssize(read_slots_), hidden);
  scatter_add_rows(columns(d_joined, hidden, hidden), pairs().places(), d_states, pool());
  recurrence_.backward(head, inputs_, d_states, gradients);
}

}  // namespace paceline::drafter
