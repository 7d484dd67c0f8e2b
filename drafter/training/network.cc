#include "drafter/training/network.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/error.h"

namespace paceline::drafter {
namespace {

LossOptions checked(const LossOptions& loss) {
  if (loss.depth_weights.empty()) throw ConfigError("training needs a depth of at least 1");
  for (const float weight : loss.depth_weights) {
    if (!(weight >= 0) || !std::isfinite(weight)) {
      throw ConfigError("a depth's loss weight is {}, expected a number from 0", weight);
    }
  }
  if (!(loss.teacher_share >= 0 && loss.teacher_share <= 1)) {
    throw ConfigError("the teacher's share of the loss is {}, expected 0 to 1", loss.teacher_share);
  }
  return loss;
}

/// Columns [first, first + count).
Matrix columns(Matrix matrix, std::int64_t first, std::int64_t count) {
  return {matrix.data + first, matrix.rows, count, matrix.stride};
}

/// A [rows, cols] matrix in a vector.
ConstMatrix as_matrix(const std::vector<float>& values, std::int64_t rows, std::int64_t cols) {
  return {values.data(), rows, cols, cols};
}

}  // namespace

void LossSums::add(const LossSums& other) {
  loss += other.loss;
  weight += other.weight;
}

void HeadNetwork::RowSet::clear(std::int64_t text_rows) {
  rows.clear();
  slots.assign(text_rows, -1);
}

std::int32_t HeadNetwork::RowSet::slot(std::int32_t row) {
  if (slots[row] < 0) {
    slots[row] = static_cast<std::int32_t>(rows.size());
    rows.push_back(row);
  }
  return slots[row];
}

HeadNetwork::HeadNetwork(const DrafterConfig& config, const LossOptions& loss,
                         ConstMatrix base_output, Gemm& gemm, kernels::ThreadPool& pool)
    : config_(config),
      loss_(checked(loss)),
      base_output_(base_output),
      draft_index_(config.vocab_size, -1),
      gemm_(gemm),
      pool_(pool),
      recurrence_(config, gemm, pool),
      exit_(config, gemm, pool) {
  check(base_output.rows == config.num_outputs() && base_output.cols == config.hidden_size,
        "the base's output rows are [{}, {}], expected [{}, {}]", base_output.rows,
        base_output.cols, config.num_outputs(), config.hidden_size);
  for (std::int64_t row = 0; row < config.num_outputs(); ++row) {
    draft_index_[config.token_of(static_cast<std::int32_t>(row))] = static_cast<std::int32_t>(row);
  }
}

void HeadNetwork::check_text(const TeacherRows& text,
                             std::span<const DraftPosition> positions) const {
  const std::int64_t elements = text.rows * config_.hidden_size;
  check(std::ssize(text.hidden) == elements && std::ssize(text.next_embedding) == elements &&
            std::ssize(text.next_token) == text.rows,
        "a text of {} rows has {} and {} numbers and {} tokens, expected hidden size {}", text.rows,
        text.hidden.size(), text.next_embedding.size(), text.next_token.size(),
        config_.hidden_size);
  for (const DraftPosition& position : positions) {
    check(position.row >= 0 && position.steps >= 0 && position.steps <= loss_.depth() &&
              std::int64_t{position.row} + position.steps < text.rows,
          "a position at row {} with {} steps in a text of {} rows, at depth {}", position.row,
          position.steps, text.rows, loss_.depth());
  }
  for (const std::int32_t token : text.next_token) {
    check(token >= 0 && token < config_.vocab_size, "token {} in a vocabulary of {}", token,
          config_.vocab_size);
  }
}

void HeadNetwork::lay_out(const TeacherRows& text, std::span<const DraftPosition> positions) {
  check_text(text, positions);
  active_.clear();
  active_index_.clear();
  for (std::size_t i = 0; i < positions.size(); ++i) {
    if (positions[i].steps == 0) continue;
    active_.push_back(positions[i]);
    active_index_.push_back(static_cast<std::int32_t>(i));
  }
  read_.clear(text.rows);
  taught_.clear(text.rows);
  read_slots_.clear();
  targets_.clear();
  state_rows_.clear();
  hidden_rows_.clear();
  for (std::int32_t step = 0; step < loss_.depth(); ++step) {
    for (std::size_t i = 0; i < active_.size(); ++i) {
      const DraftPosition& position = active_[i];
      if (step >= position.steps) {
        read_slots_.push_back(0);  // some token: nothing depends on this state, nor on later ones
        continue;
      }
      read_slots_.push_back(read_.slot(position.row + step));
      const std::int32_t token = draft_index_[text.next_token[position.row + step + 1]];
      if (token < 0) continue;  // masked
      state_rows_.push_back(step * static_cast<std::int32_t>(active_.size()) +
                            static_cast<std::int32_t>(i));
      hidden_rows_.push_back(position.row);
      targets_.push_back({taught_.slot(position.row + step + 1), token, loss_.depth_weights[step]});
    }
  }
}

Matrix HeadNetwork::forward(const HeadTensors& head, const TeacherRows& text) {
  const std::int64_t hidden = config_.hidden_size;
  const Matrix embeddings = read_embeddings_.resize(std::ssize(read_.rows), hidden);
  gather_rows(as_matrix(text.next_embedding, text.rows, hidden), read_.rows, embeddings, pool_);
  inputs_ = {embeddings, read_slots_, std::ssize(active_)};
  const Matrix states = recurrence_.forward(head, inputs_);

  const Matrix joined = joined_.resize(std::ssize(targets_), 2 * hidden);
  gather_rows(as_matrix(text.hidden, text.rows, hidden), hidden_rows_, columns(joined, 0, hidden),
              pool_);
  gather_rows(states, state_rows_, columns(joined, hidden, hidden), pool_);
  return exit_.forward(head, output_of(head), joined);
}

LossSums HeadNetwork::compute_loss(const TeacherRows& text, Matrix logits) {
  const std::int64_t taught = std::ssize(taught_.rows);
  const Matrix hidden = taught_hidden_.resize(taught, config_.hidden_size);
  gather_rows(as_matrix(text.hidden, text.rows, config_.hidden_size), taught_.rows, hidden, pool_);
  const Matrix probabilities = probabilities_.resize(taught, base_output_.rows);
  gemm_.multiply(hidden, transpose(base_output_), probabilities);
  negative_entropy_.resize(taught);
  softmax(probabilities, negative_entropy_, pool_);

  losses_.resize(targets_.size());
  distillation_loss({probabilities, negative_entropy_, loss_.teacher_share}, targets_, logits,
                    losses_, pool_);
  LossSums sums;
  for (std::size_t pair = 0; pair < targets_.size(); ++pair) {
    const double weight = targets_[pair].weight;
    sums.add({weight * losses_[pair], weight});
  }
  return sums;
}

LossSums HeadNetwork::add_gradients(const HeadTensors& head, const TeacherRows& text,
                                    std::span<const DraftPosition> positions,
                                    HeadTensors& gradients) {
  lay_out(text, positions);
  if (targets_.empty()) return {};
  const Matrix logits = forward(head, text);
  const LossSums sums = compute_loss(text, logits);
  const Matrix d_joined = exit_.backward(head, output_of(head), logits, gradients);
  const Matrix d_states = d_states_.resize_to_zero(std::ssize(read_slots_), config_.hidden_size);
  scatter_add_rows(columns(d_joined, config_.hidden_size, config_.hidden_size), state_rows_,
                   d_states, pool_);
  recurrence_.backward(head, inputs_, d_states, gradients);
  return sums;
}

LossSums HeadNetwork::evaluate(const HeadTensors& head, const TeacherRows& text,
                               std::span<const DraftPosition> positions,
                               std::span<std::int32_t> ranks) {
  check(ranks.size() == positions.size() * loss_.depth(), "{} ranks for {} positions, depth {}",
        ranks.size(), positions.size(), loss_.depth());
  std::fill(ranks.begin(), ranks.end(), kNotDrafted);
  lay_out(text, positions);
  if (targets_.empty()) return {};
  const Matrix logits = forward(head, text);
  std::vector<std::int32_t> pair_ranks(targets_.size());
  target_ranks(logits, targets_, pair_ranks, pool_);
  for (std::size_t pair = 0; pair < targets_.size(); ++pair) {
    const std::size_t step = state_rows_[pair] / active_.size();
    const std::size_t position = active_index_[state_rows_[pair] % active_.size()];
    ranks[position * loss_.depth() + step] = pair_ranks[pair];
  }
  return compute_loss(text, logits);
}

}  // namespace paceline::drafter
