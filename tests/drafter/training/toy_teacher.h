#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "drafter/config.h"
#include "drafter/training/teacher_data.h"
#include "drafter/weights.h"
#include "tests/drafter/training/random_numbers.h"

namespace paceline::drafter {

/// A base model without attention: its hidden state depends on the last token alone (and a little
/// noise), and says most often that (5 token + 3) % 64 follows. Embedding and output matrix are the
/// same random rows. A quarter of the tokens is not in the draft vocabulary.
class ToyTeacher {
 public:
  static constexpr std::int64_t kVocab = 64;
  static constexpr std::int64_t kHidden = 16;
  static constexpr int kLength = 40;  // rows of a text
  static constexpr int kPrompt = 8;

  ToyTeacher() : output_(RandomNumbers(100).vector(kVocab * kHidden)) {
    for (std::int32_t token = 0; token < kVocab; ++token) {
      if (token % 4 == 3) continue;
      draft_vocab_.push_back(token);
      const auto row = embedding(token);
      base_output_.insert(base_output_.end(), row.begin(), row.end());
    }
  }

  DrafterConfig config() const {
    DrafterConfig config;
    config.vocab_size = kVocab;
    config.hidden_size = kHidden;
    config.exit_dim = 2 * kHidden;
    config.num_draft_layers = 1;
    config.rnn = true;
    config.draft_vocab = draft_vocab_;
    return config;
  }
  std::span<const float> embedding(std::int32_t token) const {
    return const_matrix(output_, kHidden).row(token);
  }
  /// [draft vocabulary, kHidden]
  ConstMatrix base_output() const { return const_matrix(base_output_, kHidden); }

  /// Appends text number `seed` as the model goes on at temperature 1.
  void append_text(std::uint32_t seed, int depth, TeacherRows& to) const {
    RandomNumbers random(seed);
    auto token = static_cast<std::int32_t>(random.unit() * kVocab);
    const auto first = static_cast<std::int32_t>(to.rows);
    for (int row = 0; row < kLength; ++row) {
      std::vector<float> hidden;
      for (const float x : embedding((5 * token + 3) % kVocab)) {
        hidden.push_back(1.5f * x + 0.05f * random.next());
      }
      token = sample(hidden, random.unit());
      to.hidden.insert(to.hidden.end(), hidden.begin(), hidden.end());
      const auto next = embedding(token);
      to.next_embedding.insert(to.next_embedding.end(), next.begin(), next.end());
      to.next_token.push_back(token);
      if (row >= kPrompt) to.positions.push_back({first + row, std::min(depth, kLength - 1 - row)});
    }
    to.rows += kLength;
  }

 private:
  std::int32_t sample(const std::vector<float>& hidden, double u) const {
    std::vector<double> weights;
    double total = 0;
    for (std::int32_t token = 0; token < kVocab; ++token) {
      double logit = 0;
      for (std::int64_t i = 0; i < kHidden; ++i) logit += embedding(token)[i] * hidden[i];
      total += weights.emplace_back(std::exp(logit));
    }
    std::int32_t token = 0;
    for (u *= total; token < kVocab - 1 && u >= weights[token]; ++token) u -= weights[token];
    return token;
  }

  std::vector<float> output_;       // [kVocab, kHidden]
  std::vector<float> base_output_;  // [draft vocabulary, kHidden]
  std::vector<std::int32_t> draft_vocab_;
};

/// Four texts a minibatch, and four that are held out, dealt to the ranks in turn.
class ToyData final : public TeacherData {
 public:
  ToyData(const ToyTeacher& teacher, int depth, int rank = 0, int ranks = 1)
      : teacher_(teacher), depth_(depth), rank_(rank), ranks_(ranks) {}

  static constexpr int kTexts = 4;

  void minibatch(std::uint64_t index, TeacherRows& batch) override {
    batch = {};
    for (int text = rank_; text < kTexts; text += ranks_) {
      teacher_.append_text(1000 + static_cast<std::uint32_t>(index) * kTexts + text, depth_, batch);
    }
  }
  int held_out_texts() const override { return (kTexts - rank_ + ranks_ - 1) / ranks_; }
  void held_out(int text, TeacherRows& rows) override {
    rows = {};
    teacher_.append_text(1 + rank_ + text * ranks_, depth_, rows);
  }
  std::string identity() const override { return "toy texts"; }

 private:
  const ToyTeacher& teacher_;
  int depth_, rank_, ranks_;
};

}  // namespace paceline::drafter
