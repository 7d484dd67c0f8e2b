#include "drafter/training/draft_pairs.h"

#include "kernels/core/error.h"

namespace paceline::drafter {

void RowSet::clear(std::int64_t text_rows) {
  rows.clear();
  slots.assign(text_rows, -1);
}

std::int32_t RowSet::slot(std::int32_t row) {
  if (slots[row] < 0) {
    slots[row] = static_cast<std::int32_t>(rows.size());
    rows.push_back(row);
  }
  return slots[row];
}

DraftPairs::DraftPairs(const DrafterConfig& config)
    : vocab_size_(config.vocab_size),
      hidden_size_(config.hidden_size),
      draft_index_(config.vocab_size, -1) {
  for (std::int64_t row = 0; row < config.num_outputs(); ++row) {
    draft_index_[config.token_of(static_cast<std::int32_t>(row))] = static_cast<std::int32_t>(row);
  }
}

void DraftPairs::check_text(const TeacherRows& text, std::span<const DraftPosition> positions,
                            std::int64_t depth) const {
  const std::int64_t elements = text.rows * hidden_size_;
  check(std::ssize(text.hidden) == elements && std::ssize(text.next_embedding) == elements &&
            std::ssize(text.next_token) == text.rows,
        "a text of {} rows has {} and {} numbers and {} tokens, expected hidden size {}", text.rows,
        text.hidden.size(), text.next_embedding.size(), text.next_token.size(), hidden_size_);
  for (const DraftPosition& position : positions) {
    check(position.row >= 0 && position.steps >= 0 && position.steps <= depth &&
              std::int64_t{position.row} + position.steps < text.rows,
          "a position at row {} with {} steps in a text of {} rows, at depth {}", position.row,
          position.steps, text.rows, depth);
  }
  for (const std::int32_t token : text.next_token) {
    check(token >= 0 && token < vocab_size_, "token {} in a vocabulary of {}", token, vocab_size_);
  }
}

void DraftPairs::lay_out(const TeacherRows& text, std::span<const DraftPosition> positions,
                         std::span<const float> depth_weights) {
  const auto depth = static_cast<std::int32_t>(depth_weights.size());
  check_text(text, positions, depth);
  active_.clear();
  active_index_.clear();
  for (std::size_t i = 0; i < positions.size(); ++i) {
    if (positions[i].steps == 0) continue;
    active_.push_back(positions[i]);
    active_index_.push_back(static_cast<std::int32_t>(i));
  }
  taught_.clear(text.rows);
  targets_.clear();
  hidden_rows_.clear();
  places_.clear();
  step_begins_.assign(1, 0);
  for (std::int32_t step = 0; step < depth; ++step) {
    for (std::size_t i = 0; i < active_.size(); ++i) {
      const DraftPosition& position = active_[i];
      if (step >= position.steps) continue;
      const std::int32_t guessed = position.row + step + 1;  // the row whose next token that is
      const std::int32_t token = draft_index_[text.next_token[guessed]];
      if (token < 0) continue;  // masked
      places_.push_back(step * static_cast<std::int32_t>(active_.size()) +
                        static_cast<std::int32_t>(i));
      hidden_rows_.push_back(position.row);
      targets_.push_back({taught_.slot(guessed), token, depth_weights[step]});
    }
    step_begins_.push_back(static_cast<std::int32_t>(targets_.size()));
  }
}

}  // namespace paceline::drafter
