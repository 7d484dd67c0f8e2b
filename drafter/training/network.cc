#include "drafter/training/network.h"

#include <algorithm>
#include <cmath>

#include "drafter/training/medusa_network.h"
#include "drafter/training/recurrent_network.h"
#include "drafter/training/row_ops.h"
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

}  // namespace

void LossSums::add(const LossSums& other) {
  loss += other.loss;
  weight += other.weight;
}

HeadNetwork::HeadNetwork(const DrafterConfig& config, const LossOptions& loss,
                         ConstMatrix base_output, Gemm& gemm, kernels::ThreadPool& pool)
    : config_(config),
      loss_(checked(loss)),
      base_output_(base_output),
      gemm_(gemm),
      pool_(pool),
      pairs_(config) {
  check(base_output.rows == config.num_outputs() && base_output.cols == config.hidden_size,
        "the base's output rows are [{}, {}], expected [{}, {}]", base_output.rows,
        base_output.cols, config.num_outputs(), config.hidden_size);
}

Matrix HeadNetwork::forward_pairs(const HeadTensors& head, const TeacherRows& text) {
  const Matrix logits = logits_.resize(pairs_.size(), base_output_.rows);
  forward(head, text, logits);
  return logits;
}

LossSums HeadNetwork::compute_loss(const TeacherRows& text, Matrix logits) {
  const std::vector<std::int32_t>& rows = pairs_.taught().rows;
  const Matrix hidden = taught_hidden_.resize(std::ssize(rows), config_.hidden_size);
  gather_rows(as_matrix(text.hidden, text.rows, config_.hidden_size), rows, hidden, pool_);
  const Matrix probabilities = probabilities_.resize(std::ssize(rows), base_output_.rows);
  gemm_.multiply(hidden, transpose(base_output_), probabilities);
  negative_entropy_.resize(rows.size());
  softmax(probabilities, negative_entropy_, pool_);

  const std::span<const RowTarget> targets = pairs_.targets();
  losses_.resize(targets.size());
  distillation_loss({probabilities, negative_entropy_, loss_.teacher_share}, targets, logits,
                    losses_, pool_);
  LossSums sums;
  for (std::size_t pair = 0; pair < targets.size(); ++pair) {
    const double weight = targets[pair].weight;
    sums.add({weight * losses_[pair], weight});
  }
  return sums;
}

LossSums HeadNetwork::add_gradients(const HeadTensors& head, const TeacherRows& text,
                                    std::span<const DraftPosition> positions,
                                    HeadTensors& gradients) {
  pairs_.lay_out(text, positions, loss_.depth_weights);
  if (pairs_.size() == 0) return {};
  const Matrix logits = forward_pairs(head, text);
  const LossSums sums = compute_loss(text, logits);
  backward(head, logits, gradients);
  return sums;
}

LossSums HeadNetwork::evaluate(const HeadTensors& head, const TeacherRows& text,
                               std::span<const DraftPosition> positions,
                               std::span<std::int32_t> ranks) {
  check(ranks.size() == positions.size() * loss_.depth(), "{} ranks for {} positions, depth {}",
        ranks.size(), positions.size(), loss_.depth());
  std::fill(ranks.begin(), ranks.end(), kNotDrafted);
  pairs_.lay_out(text, positions, loss_.depth_weights);
  if (pairs_.size() == 0) return {};
  const Matrix logits = forward_pairs(head, text);
  std::vector<std::int32_t> pair_ranks(pairs_.size());
  target_ranks(logits, pairs_.targets(), pair_ranks, pool_);
  const std::size_t active = pairs_.active().size();
  for (std::size_t pair = 0; pair < pair_ranks.size(); ++pair) {
    const std::size_t step = pairs_.places()[pair] / active;
    const std::size_t position = pairs_.active_index()[pairs_.places()[pair] % active];
    ranks[position * loss_.depth() + step] = pair_ranks[pair];
  }
  return compute_loss(text, logits);
}

std::unique_ptr<HeadNetwork> make_network(const DrafterConfig& config, const LossOptions& loss,
                                          ConstMatrix base_output, Gemm& gemm,
                                          kernels::ThreadPool& pool) {
  if (config.kind == DrafterKind::kMedusa) {
    return std::make_unique<MedusaNetwork>(config, loss, base_output, gemm, pool);
  }
  return std::make_unique<RecurrentNetwork>(config, loss, base_output, gemm, pool);
}

}  // namespace paceline::drafter
