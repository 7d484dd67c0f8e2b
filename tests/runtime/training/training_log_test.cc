#include "runtime/training/training_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "kernels/core/error.h"
#include "tests/temporary_directory.h"

namespace paceline::runtime {
namespace {

using ::testing::HasSubstr;

class TrainingLogTest : public testing::Test {
 protected:
  static drafter::StepReport report(std::uint64_t step) {
    drafter::StepReport report;
    report.step = step;
    report.loss = 2.5;
    report.positions = 100;
    report.gradient_norm = 0.5;
    report.learning_rate = 0.25f;
    return report;
  }
  static LoggedEvaluation evaluation(std::uint64_t step) {
    LoggedEvaluation evaluation;
    evaluation.step = step;
    evaluation.positions = 300;
    evaluation.result.loss = 1.5;
    evaluation.result.acceptance = {0.5, 0.25};
    evaluation.result.tokens_per_step = {1.5, 1.75, 2, 2.25};
    evaluation.shapes = {{"4x4", 1.5}, {"16x5", 1.75}};
    return evaluation;
  }
  std::filesystem::path path() const { return directory_.path() / "log.jsonl"; }
  TemporaryDirectory directory_;
};

TEST_F(TrainingLogTest, WritesALineForTheLastStepCounted) {
  TrainingLog log(path(), 0);
  log.count(report(1));
  log.count(report(2));
  log.write_step(1.5);
  log.write_step(2.5);  // nothing new
  EXPECT_EQ(directory_.read("log.jsonl"),
            "{\"step\":2,\"positions\":200.0,\"loss\":2.5,\"learning_rate\":0.25,"
            "\"gradient_norm\":0.5,\"seconds\":1.5}\n");
}

TEST_F(TrainingLogTest, GoesOnBehindTheStepOfTheCheckpoint) {
  {
    TrainingLog log(path(), 0);
    for (std::uint64_t step = 1; step <= 3; ++step) {
      log.count(report(step));
      log.write_step(static_cast<double>(step));
    }
    log.write(evaluation(3));
    log.count(report(4));
    log.write_step(4);  // done again behind the checkpoint of step 3
  }
  std::ofstream(path(), std::ios::app) << "{\"step\":5,\"pos";
  TrainingLog log(path(), 3);
  EXPECT_EQ(log.positions(), 300);
  EXPECT_EQ(log.seconds_before(), 3);
  ASSERT_EQ(log.evaluations().size(), 1u);
  EXPECT_EQ(log.evaluations()[0].result.acceptance, evaluation(3).result.acceptance);
  EXPECT_EQ(log.evaluations()[0].result.tokens_per_step, evaluation(3).result.tokens_per_step);
  EXPECT_EQ(log.evaluations()[0].shapes, evaluation(3).shapes);
  log.count(report(4));
  log.write_step(1);
  EXPECT_THAT(directory_.read("log.jsonl"),
              HasSubstr("{\"step\":4,\"positions\":400.0,\"loss\":2.5,\"learning_rate\":0.25,"
                        "\"gradient_norm\":0.5,\"seconds\":4.0}\n"));
  EXPECT_EQ(std::ranges::count(directory_.read("log.jsonl"), '\n'), 5);
}

TEST_F(TrainingLogTest, BeginsAnewAndRefusesWhatIsNoLog) {
  directory_.write("log.jsonl", "{\"step\": 1}\n");
  EXPECT_THROW(TrainingLog(path(), 1), ConfigError);
  TrainingLog(path(), 0);
  EXPECT_EQ(directory_.read("log.jsonl"), "");
}

}  // namespace
}  // namespace paceline::runtime
