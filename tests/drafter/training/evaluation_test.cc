#include "drafter/training/evaluation.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "drafter/head_drafter.h"
#include "drafter/training/trained_weights.h"
#include "drafter/training/trainer.h"
#include "tests/drafter/training/toy_teacher.h"

namespace paceline::drafter {
namespace {

constexpr int kDepth = 3;

class ToyEmbedding final : public TokenEmbedding {
 public:
  explicit ToyEmbedding(const ToyTeacher& teacher) : teacher_(teacher) {}
  void forward(const std::int32_t* tokens, float* out, std::int64_t rows) override {
    for (std::int64_t r = 0; r < rows; ++r) {
      const auto row = teacher_.embedding(tokens[r]);
      out = std::copy(row.begin(), row.end(), out);
    }
  }

 private:
  const ToyTeacher& teacher_;
};

/// Drafts what it is told to after each token.
class ScriptedDrafter final : public Drafter {
 public:
  using Script = std::map<std::int32_t, std::vector<std::int32_t>>;  // last token: a chain
  explicit ScriptedDrafter(Script script) : script_(std::move(script)) {}

  void draft(const DraftBatch& batch, std::vector<TokenTree>& trees) override {
    trees.assign(batch.requests.size(), {});
    for (std::size_t i = 0; i < trees.size(); ++i) {
      const DraftRequest& request = batch.requests[i];
      hidden.push_back(batch.hidden[request.hidden_row]);
      max_depths.push_back(request.max_depth);
      std::int32_t node = TreeNode::kRoot;
      for (const std::int32_t token : script_.at(request.tokens.back())) {
        node = trees[i].add(node, token, 0, 0);
      }
    }
  }
  std::int32_t most_nodes(const DraftShape&) const override { return 2; }
  const DraftStats& stats() const override { return stats_; }

  std::vector<float> hidden;
  std::vector<std::int32_t> max_depths;

 private:
  Script script_;
  DraftStats stats_;
};

// The text 10 11 12 13 14 15 16, drafted for from the row before 11 on. After 11 the tree 12 13 is
// right and 14 comes on top; after 14 the tree 99 is wrong and 15 comes; at the text's end nothing
// can be drafted, and 16 comes.
TEST(SimulateDrafts, WalksATextAsDecodingWould) {
  TeacherRows text;
  text.rows = 6;
  text.hidden = {0, 1, 2, 3, 4, 5};
  text.next_token = {11, 12, 13, 14, 15, 16};
  text.positions = {{0, 2}, {1, 2}, {2, 2}, {3, 2}, {4, 1}, {5, 0}};
  ScriptedDrafter drafter({{11, {12, 13}}, {14, {99}}, {15, {98, 97}}});
  const auto backend = kernels::make_reference_backend();
  const DraftSimulation walked =
      simulate_drafts(drafter, *backend, std::span(&text, 1), {.width = 1, .depth = 2});
  EXPECT_EQ(walked.steps, 3);
  EXPECT_EQ(walked.tokens, 3 + 1 + 1);
  EXPECT_EQ(walked.nodes, 2 + 1 + 2);
  EXPECT_EQ(drafter.hidden, (std::vector<float>{0, 3, 4}));
  EXPECT_EQ(drafter.max_depths, (std::vector<std::int32_t>{2, 2, 1}));
  EXPECT_DOUBLE_EQ(walked.tokens_per_step(), 5.0 / 3);
}

/// The toy teacher's head, with some things changed.
DrafterConfig recurrent(bool rnn, std::int64_t exit_dim, std::int64_t layers) {
  DrafterConfig config = ToyTeacher().config();
  config.rnn = rnn;
  config.exit_dim = exit_dim;
  config.num_draft_layers = layers;
  return config;
}

DrafterConfig medusa(std::int64_t layers, bool tied) {
  DrafterConfig config = recurrent(false, ToyTeacher::kHidden, layers);
  config.kind = DrafterKind::kMedusa;
  config.num_heads = kDepth;
  config.tied_head = tied;
  return config;
}

class EvaluationOf : public testing::TestWithParam<DrafterConfig> {};

// What the training network counts for the chain of the likeliest tokens is what the drafter gets
// with a width of 1 and the same weights.
TEST_P(EvaluationOf, IsWhatTheDrafterReaches) {
  const ToyTeacher teacher;
  const DrafterConfig& config = GetParam();
  ToyData data(teacher, kDepth);
  const auto group = parallel::make_single();
  kernels::ThreadPool pool(1);
  TrainingOptions options;
  options.loss.depth_weights = {1, 1, 1};
  options.rate.peak = 0.01f;
  options.rate.steps = 60;
  Trainer trainer(config, options, teacher.base_output(), data, *group, pool);
  trainer.run(60, [](const StepReport&) { return true; });

  const auto backend = kernels::make_reference_backend();
  ToyEmbedding embedding(teacher);
  const TrainedWeights weights(trainer.parameters(), teacher.base_output());
  std::vector<TeacherRows> texts(data.held_out_texts());
  for (int text = 0; text < data.held_out_texts(); ++text) data.held_out(text, texts[text]);
  const auto walk = [&](std::int32_t width) {
    DrafterConfig shaped = config;
    // Medusa's likeliest nodes need not be a chain, so it is told to draft one.
    if (width == 1 && config.kind == DrafterKind::kMedusa)
      shaped.choices = {{0}, {0, 0}, {0, 0, 0}};
    const auto drafter = make_drafter(shaped, weights, embedding, *backend);
    return simulate_drafts(*drafter, *backend, texts, {.width = width, .depth = kDepth})
        .tokens_per_step();
  };
  const Evaluation evaluation = trainer.evaluate();
  const double chain = walk(1);
  EXPECT_GT(chain, 1.1);
  EXPECT_DOUBLE_EQ(chain, evaluation.tokens_per_step[0]);
  // Beams help, and cannot do more than the bound.
  EXPECT_GT(walk(4), chain);
  EXPECT_LE(walk(4), evaluation.tokens_per_step[config.kind == DrafterKind::kMedusa ? 3 : 2]);
}

INSTANTIATE_TEST_SUITE_P(Heads, EvaluationOf,
                         testing::Values(recurrent(true, 32, 1), recurrent(true, 16, 2),
                                         recurrent(false, 32, 2), recurrent(false, 20, 1),
                                         medusa(1, false), medusa(2, true)),
                         [](const auto& instance) {
                           const DrafterConfig& config = instance.param;
                           return fmt::format("{}{}{}With{}", kind_name(config.kind),
                                              config.rnn ? "Rnn" : "", config.exit_dim,
                                              config.num_draft_layers);
                         });

}  // namespace
}  // namespace paceline::drafter
