#include "launcher/bench_cases.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/core/error.h"
#include "tests/temporary_directory.h"

namespace paceline::launcher {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A tiny model, which has no tokenizer: prompts are ids.
BenchOptions options() {
  BenchOptions options;
  options.model.model = std::string(PACELINE_TEST_DATA) + "/models/llama_gqa";
  options.prompt_tokens = {3, 5};
  options.new_tokens = 20;
  options.concurrency = {1, 4};
  return options;
}

std::vector<BenchCase> cases_of(const BenchOptions& options) {
  return make_cases(options, runtime::read_model_config(options.model.model));
}

std::string refusal(const BenchOptions& options) {
  try {
    cases_of(options);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(MakeCases, AreEveryLengthAtEveryConcurrency) {
  const std::vector<BenchCase> cases = cases_of(options());
  ASSERT_EQ(cases.size(), 4u);
  EXPECT_EQ(cases[3].prompt_tokens, 5);
  const runtime::Workload& load = cases[3].workload;
  EXPECT_EQ(load.concurrency, 4);
  EXPECT_FALSE(load.open);
  ASSERT_EQ(load.items.size(), 4u);
  for (const auto& item : load.items) {
    EXPECT_EQ(item.request.prompt.size(), 5u);
    EXPECT_EQ(item.request.max_new_tokens, 20);
    EXPECT_TRUE(item.request.ignore_eos);
  }
  EXPECT_NE(load.items[0].request.prompt, load.items[1].request.prompt);
  EXPECT_EQ(cases_of(options())[3].workload.items[2].request.prompt, load.items[2].request.prompt);
  BenchOptions other = options();
  other.seed = 1;
  EXPECT_NE(cases_of(other)[3].workload.items[2].request.prompt, load.items[2].request.prompt);
}

TEST(MakeCases, AnOpenLoadHasArrivals) {
  BenchOptions open = options();
  open.request_rate = 4;
  open.num_prompts = 10;
  const runtime::Workload load = cases_of(open).front().workload;
  EXPECT_TRUE(load.open);
  ASSERT_EQ(load.items.size(), 10u);
  EXPECT_EQ(load.items[0].arrival, 0);
  EXPECT_GT(load.items[9].arrival, load.items[8].arrival);
}

TEST(MakeCases, TakeAnInputsRequestsAndTheirCategories) {
  const TemporaryDirectory directory;
  BenchOptions input = options();
  input.concurrency = {2};
  input.input =
      directory
          .write("tasks.jsonl",
                 R"({"prompt": [1, 2, 3], "max_tokens": 5, "metadata": {"category": "maths"}}
{"prompt": [4, 5], "max_tokens": 50, "temperature": 0.5, "seed": 3}
)")
          .string();
  input.num_prompts = 3;
  const std::vector<BenchCase> cases = cases_of(input);
  ASSERT_EQ(cases.size(), 1u);
  EXPECT_EQ(cases[0].input, "tasks");
  const runtime::Workload& load = cases[0].workload;
  EXPECT_THAT(load.tasks, ElementsAre("maths", "other"));
  ASSERT_EQ(load.items.size(), 3u);  // the first one again
  EXPECT_THAT(load.items[2].request.prompt, ElementsAre(1, 2, 3));
  EXPECT_EQ(load.items[2].task, 0);
  EXPECT_EQ(load.items[0].request.max_new_tokens, 5);
  EXPECT_EQ(load.items[1].request.max_new_tokens, 20);
  EXPECT_EQ(load.items[1].request.temperature, 0.5f);
  EXPECT_FALSE(load.items[1].request.ignore_eos);
  EXPECT_EQ(load.items[1].task, 1);
}

TEST(MakeCases, RefuseWhatDoesNotFit) {
  BenchOptions wrong = options();
  wrong.new_tokens = 1 << 20;
  EXPECT_THAT(refusal(wrong), HasSubstr("the model's context is"));
  const TemporaryDirectory directory;
  wrong = options();
  wrong.input = directory.write("bad.jsonl", "\n{\"prompt\": []}\n").string();
  EXPECT_THAT(refusal(wrong), HasSubstr("line 2"));
  wrong.input = directory.write("empty.jsonl", "").string();
  EXPECT_THAT(refusal(wrong), HasSubstr("holds no request"));
}

TEST(WarmUp, IsShort) {
  BenchOptions many = options();
  many.num_prompts = 10;
  many.request_rate = 1;
  const runtime::Workload first = warm_up_of(cases_of(many).back().workload);
  EXPECT_EQ(first.items.size(), 4u);
  EXPECT_EQ(first.items.front().request.max_new_tokens, 8);
  EXPECT_FALSE(first.open);
}

}  // namespace
}  // namespace paceline::launcher
