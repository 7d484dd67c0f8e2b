#include "drafter/training/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <sstream>

#include "kernels/core/error.h"
#include "tests/drafter/training/toy_teacher.h"
#include "tests/parallel/rank_threads.h"

namespace paceline::drafter {
namespace {

using ::testing::HasSubstr;

constexpr int kDepth = 3;

TrainingOptions toy_options() {
  TrainingOptions options;
  options.loss.depth_weights = {1.0f, 0.9f, 0.81f};
  options.rate.peak = 0.01f;
  options.rate.warmup_steps = 5;
  options.rate.steps = 20;
  options.positions_at_once = 50;
  return options;
}

/// A trainer of the toy teacher's drafter, alone or as one of several ranks.
class ToyTraining {
 public:
  explicit ToyTraining(const TrainingOptions& options = toy_options(), int threads = 1,
                       parallel::Communicator* group = nullptr,
                       const DrafterConfig& config = ToyTeacher().config())
      : single_(parallel::make_single()),
        group_(group != nullptr ? *group : *single_),
        data_(teacher_, kDepth, group_.rank(), group_.size()),
        pool_(threads),
        trainer(config, options, teacher_.base_output(), data_, group_, pool_) {}

  void run(std::uint64_t until) {
    trainer.run(until, [](const StepReport&) { return true; });
  }
  std::string saved() const {
    std::ostringstream stream;
    trainer.save(stream, "memory");
    return stream.str();
  }
  Trainer::Restored restore(const std::string& bytes) {
    std::istringstream stream(bytes);
    return trainer.restore(stream, "a.checkpoint");
  }
  std::string refusal(const std::string& bytes) {
    try {
      restore(bytes);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "accepted";
  }

 private:
  ToyTeacher teacher_;
  std::unique_ptr<parallel::Communicator> single_;
  parallel::Communicator& group_;
  ToyData data_;
  kernels::ThreadPool pool_;

 public:
  Trainer trainer;
};

TEST(Trainer, LearnsWhatTheTeacherSays) {
  for (const float teacher_share : {1.0f, 0.0f}) {
    TrainingOptions options = toy_options();
    options.loss.teacher_share = teacher_share;
    options.rate.steps = 150;
    ToyTraining toy(options, 2);
    const Evaluation before = toy.trainer.evaluate();
    toy.run(150);
    const Evaluation after = toy.trainer.evaluate();
    EXPECT_LT(after.loss, 0.6 * before.loss);
    // The teacher itself is right about 6 times of 10: a quarter of the tokens cannot be drafted.
    EXPECT_LT(before.acceptance[0], 0.15);
    EXPECT_GT(after.acceptance[0], 0.4);
    EXPECT_GT(after.acceptance[2], 0.3);
    EXPECT_GT(after.tokens_per_step[0], before.tokens_per_step[0] + 0.4);
    EXPECT_GE(after.tokens_per_step[1], after.tokens_per_step[0]);
    EXPECT_GE(after.tokens_per_step[3], after.tokens_per_step[1]);
  }
}

/// Medusa heads for the toy teacher.
DrafterConfig medusa_heads() {
  DrafterConfig config = ToyTeacher().config();
  config.kind = DrafterKind::kMedusa;
  config.rnn = false;
  config.exit_dim = config.hidden_size;
  config.num_heads = kDepth;
  return config;
}

TEST(Trainer, TeachesMedusaHeadsLikewise) {
  TrainingOptions options = toy_options();
  options.rate.steps = 150;
  ToyTraining toy(options, 2, nullptr, medusa_heads());
  const Evaluation before = toy.trainer.evaluate();
  toy.run(150);
  const Evaluation after = toy.trainer.evaluate();
  EXPECT_LT(after.loss, 0.8 * before.loss);
  EXPECT_LT(before.acceptance[0], 0.15);
  EXPECT_GT(after.acceptance[0], 0.25);
  EXPECT_GT(after.tokens_per_step[0], before.tokens_per_step[0] + 0.2);

  ToyTraining straight(toy_options(), 1, nullptr, medusa_heads());
  straight.run(12);
  ToyTraining first(toy_options(), 3, nullptr, medusa_heads());
  first.run(5);
  ToyTraining second(toy_options(), 2, nullptr, medusa_heads());
  second.restore(first.saved());
  second.run(12);
  EXPECT_EQ(second.saved(), straight.saved());
  DrafterConfig more_blocks = medusa_heads();
  more_blocks.num_draft_layers = 2;
  EXPECT_THAT(ToyTraining(toy_options(), 1, nullptr, more_blocks).refusal(first.saved()),
              HasSubstr("num_draft_layers: 1"));
  EXPECT_THAT(ToyTraining().refusal(first.saved()), HasSubstr("it has \"heads: 3\""));
}

TEST(Trainer, LearnsInBf16) {
  TrainingOptions options = toy_options();
  options.rate.steps = 150;
  options.precision = GemmPrecision::kBf16;
  if (!Gemm::has_bf16()) {
    EXPECT_THROW(ToyTraining{options}, ConfigError);
    return;
  }
  ToyTraining toy(options, 2);
  toy.run(150);
  EXPECT_GT(toy.trainer.evaluate().acceptance[0], 0.4);
}

TEST(Trainer, GoesOnBitForBitAfterAResume) {
  ToyTraining straight;
  straight.run(20);

  ToyTraining first;
  first.run(10);
  TrainingOptions another_length = toy_options();
  another_length.rate.steps = 99;  // the checkpoint's counts
  ToyTraining second(another_length);
  const Trainer::Restored restored = second.restore(first.saved());
  EXPECT_TRUE(restored.same_arithmetic);
  EXPECT_EQ(second.trainer.steps_done(), 10u);
  EXPECT_EQ(second.saved(), first.saved());
  second.run(20);
  EXPECT_EQ(second.saved(), straight.saved());
  EXPECT_NE(second.saved(), first.saved());
}

TEST(Trainer, TheSameBitsWhateverTheThreads) {
  ToyTraining one(toy_options(), 1), three(toy_options(), 3);
  one.run(5);
  three.run(5);
  EXPECT_EQ(three.saved(), one.saved());
}

TEST(Trainer, RanksAgreeBitForBitAndGiveTheWholeBatchsGradient) {
  ToyTraining whole;
  const StepReport expected = whole.trainer.step();
  for (const int ranks : {2, 3}) {  // with three, one has two texts and the others one
    std::vector<StepReport> reports(ranks);
    std::vector<std::string> saved(ranks);
    std::vector<Evaluation> evaluations(ranks);
    std::vector<std::vector<float>> weights(ranks);
    parallel::run_ranks(ranks, [&](parallel::Communicator& group) {
      ToyTraining toy(toy_options(), 1, &group);
      reports[group.rank()] = toy.trainer.step();
      const auto values = toy.trainer.parameters().values();
      weights[group.rank()].assign(values.begin(), values.end());
      toy.run(8);
      saved[group.rank()] = toy.saved();
      evaluations[group.rank()] = toy.trainer.evaluate();
    });
    const auto values = whole.trainer.parameters().values();
    for (std::size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(weights[0][i], values[i], 1e-4);
    EXPECT_NEAR(reports[0].loss, expected.loss, 1e-6);
    EXPECT_NEAR(reports[0].gradient_norm, expected.gradient_norm, 1e-5);
    EXPECT_EQ(reports[0].positions, expected.positions);
    for (int rank = 1; rank < ranks; ++rank) {
      EXPECT_EQ(saved[rank], saved[0]);
      EXPECT_EQ(evaluations[rank].loss, evaluations[0].loss);
      EXPECT_EQ(evaluations[rank].acceptance, evaluations[0].acceptance);
    }
  }
}

TEST(Trainer, RanksResumeTogether) {
  std::vector<std::string> straight(2), resumed(2);
  parallel::run_ranks(2, [&](parallel::Communicator& group) {
    ToyTraining toy(toy_options(), 1, &group);
    toy.run(3);
    const std::string checkpoint = toy.saved();
    toy.run(6);
    straight[group.rank()] = toy.saved();
    ToyTraining again(toy_options(), 1, &group);
    again.restore(checkpoint);
    again.run(6);
    resumed[group.rank()] = again.saved();
  });
  EXPECT_EQ(resumed, straight);
}

TEST(Trainer, RanksThatReadDifferentCheckpointsStop) {
  std::vector<std::string> refusals(2);
  parallel::run_ranks(2, [&](parallel::Communicator& group) {
    ToyTraining toy(toy_options(), 1, &group);
    toy.run(1);
    const std::string early = toy.saved();
    toy.run(2);
    refusals[group.rank()] = toy.refusal(group.rank() == 0 ? early : toy.saved());
  });
  EXPECT_THAT(refusals, ::testing::Each(HasSubstr("rank 1 of the training has read another")));
}

TEST(Trainer, StopsEverywhereWhenOneRankSaysSo) {
  std::vector<std::uint64_t> done(2);
  parallel::run_ranks(2, [&](parallel::Communicator& group) {
    ToyTraining toy(toy_options(), 1, &group);
    toy.trainer.run(20,
                    [&](const StepReport& report) { return group.rank() == 0 || report.step < 4; });
    done[group.rank()] = toy.trainer.steps_done();
  });
  EXPECT_EQ(done, (std::vector<std::uint64_t>{4, 4}));
}

TEST(Trainer, RefusesAnotherTrainingsCheckpoint) {
  const std::string saved = ToyTraining().saved();
  TrainingOptions options = toy_options();
  options.seed = 1;
  EXPECT_THAT(ToyTraining(options).refusal(saved),
              HasSubstr("a.checkpoint: was made with other options: it has \"seed: 0\", this run "
                        "has \"seed: 1\""));
  options = toy_options();
  options.loss.depth_weights[1] = 1;
  EXPECT_THAT(ToyTraining(options).refusal(saved), HasSubstr("\"depth_weights: 1 0.9 0.81\""));
}

TEST(Trainer, RefusesDamagedCheckpoints) {
  const std::string saved = ToyTraining().saved();
  for (std::size_t size = 0; size < saved.size(); size += 1 + saved.size() / 97) {
    EXPECT_THAT(ToyTraining().refusal(saved.substr(0, size)), HasSubstr("a.checkpoint: ends"));
  }
  EXPECT_THAT(ToyTraining().refusal(saved + "x"), HasSubstr("goes on after its end"));
  std::string huge = saved;
  huge[7] = '\x7f';  // the length of its first line
  EXPECT_THAT(ToyTraining().refusal(huge), HasSubstr("expected at most"));
  EXPECT_THAT(ToyTraining().refusal(std::string(8, '\0')), HasSubstr("is not a paceline training"));
  std::string endless = saved;
  endless.replace(endless.size() - 4, 4, std::string("\0\0\x80\x7f", 4));  // infinity
  EXPECT_THAT(ToyTraining().refusal(endless), HasSubstr("not finite"));
  std::string negative = saved;
  negative.replace(negative.size() - 4, 4, std::string("\0\0\x80\xbf", 4));  // -1
  EXPECT_THAT(ToyTraining().refusal(negative), HasSubstr("negative"));
}

TEST(Trainer, SaysWhenItDiverges) {
  TrainingOptions options = toy_options();
  options.rate.peak = 1e30f;
  options.adamw.max_gradient_norm = 0;
  ToyTraining toy(options);
  EXPECT_THROW(toy.run(20), FatalError);
}

TEST(Trainer, RefusesOptionsOutOfBounds) {
  TrainingOptions options = toy_options();
  options.rate.peak = -1;
  EXPECT_THROW(ToyTraining{options}, ConfigError);
  options = toy_options();
  options.rate.final_share = 2;
  EXPECT_THROW(ToyTraining{options}, ConfigError);
  options = toy_options();
  options.positions_at_once = 0;
  EXPECT_THROW(ToyTraining{options}, ConfigError);
}

}  // namespace
}  // namespace paceline::drafter
