#include "runtime/bench/workload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/core/error.h"
#include "runtime/bench/statistics.h"

namespace paceline::runtime {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Ids = std::vector<std::int32_t>;

TEST(OrdinaryTokens, LeaveOutWhatEndsAnAnswerAndWhatIsSpecial) {
  ModelConfig config;
  config.vocab_size = 6;
  config.eos_token_ids = {2, 5};
  EXPECT_THAT(ordinary_tokens(config, nullptr), ElementsAre(0, 1, 3, 4));

  // The model has two rows more than the tokenizer has tokens; "<s>" is special.
  const Json json = Json::parse(R"({
    "added_tokens": [{"id": 0, "content": "<s>", "special": true, "normalized": false,
                      "single_word": false, "lstrip": false, "rstrip": false}],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
    "model": {"type": "BPE", "vocab": {"<s>": 0, "a": 1, "b": 2, "c": 3}, "merges": []}})");
  const Tokenizer tokenizer = Tokenizer::parse(json, "test");
  EXPECT_THAT(ordinary_tokens(config, &tokenizer), ElementsAre(1, 3));

  config.eos_token_ids = {0, 1, 2, 3, 4, 5};
  EXPECT_THROW(ordinary_tokens(config, nullptr), ConfigError);
}

TEST(RandomPrompt, IsTheSameForOneSeedAndIndexAndAnotherForOthers) {
  const Ids ids = {10, 11, 12, 13, 14, 15, 16, 17, 18, 19};
  const Ids prompt = random_prompt(ids, 40, 7, 0);
  EXPECT_EQ(prompt.size(), 40u);
  for (const std::int32_t id : prompt) EXPECT_EQ(std::ranges::count(ids, id), 1);
  EXPECT_EQ(random_prompt(ids, 40, 7, 0), prompt);
  EXPECT_NE(random_prompt(ids, 40, 7, 1), prompt);
  EXPECT_NE(random_prompt(ids, 40, 8, 0), prompt);
  // A longer one begins with it.
  Ids longer = random_prompt(ids, 50, 7, 0);
  longer.resize(40);
  EXPECT_EQ(longer, prompt);
  // The first four numbers of Philox4x32-10 from zeros, 6627e8d5 e169c58d bc57ac4c 9b00dbd8, as
  // tenths: the same on every machine.
  EXPECT_THAT(random_prompt(ids, 4, 0, 0), ElementsAre(13, 18, 17, 16));
}

TEST(ArrivalTimes, ComeAtTheRateAskedForWithExponentialGaps) {
  const std::vector<double> times = arrival_times(20'001, 50, 3);
  EXPECT_EQ(times.front(), 0);
  EXPECT_TRUE(std::ranges::is_sorted(times));
  EXPECT_NEAR(times.back(), 400, 12);  // 20,000 gaps of 1 / 50 s: 4 standard deviations
  std::vector<double> gaps;
  for (std::size_t i = 1; i < times.size(); ++i) gaps.push_back(times[i] - times[i - 1]);
  EXPECT_NEAR(percentile(gaps, 0.5) * 50, 0.6931, 0.03);  // ln 2
  EXPECT_EQ(arrival_times(20'001, 50, 3), times);
  EXPECT_NE(arrival_times(20'001, 50, 4), times);
  // Twice the rate: the same gaps, half as long.
  EXPECT_DOUBLE_EQ(arrival_times(100, 100, 3).back(), arrival_times(100, 50, 3).back() / 2);
}

Workload example() {
  Workload workload;
  for (std::uint64_t uid = 0; uid < 5; ++uid) {
    workload.items.push_back({.request = {.uid = uid,
                                          .prompt = {static_cast<std::int32_t>(uid), 3},
                                          .max_new_tokens = 4,
                                          .temperature = 0.5f,
                                          .seed = 9,
                                          .ignore_eos = true},
                              .arrival = 0.25 * static_cast<double>(uid),
                              .task = static_cast<std::int32_t>(uid % 2)});
  }
  workload.tasks = {"maths", "writing"};
  workload.concurrency = 3;
  workload.open = true;
  return workload;
}

TEST(Workload, TravelsWhole) {
  const Workload sent = example();
  const Workload got = decode_workload(encode_workload(sent));
  ASSERT_EQ(got.items.size(), 5u);
  EXPECT_EQ(got.items[4].request.prompt, sent.items[4].request.prompt);
  EXPECT_EQ(got.items[4].request.temperature, 0.5f);
  EXPECT_TRUE(got.items[4].request.ignore_eos);
  EXPECT_EQ(got.items[4].arrival, 1.0);
  EXPECT_EQ(got.items[3].task, 1);
  EXPECT_EQ(got.tasks, sent.tasks);
  EXPECT_EQ(got.concurrency, 3);
  EXPECT_TRUE(got.open);
}

// First tokens of the prompts, which number the requests.
Ids numbers_of(const Workload& workload) {
  Ids numbers;
  for (std::size_t i = 0; i < workload.items.size(); ++i) {
    EXPECT_EQ(workload.items[i].request.uid, i);
    numbers.push_back(workload.items[i].request.prompt.front());
  }
  return numbers;
}

TEST(Workload, IsDealtToReplicasInTurn) {
  const Workload first = replica_share(example(), 0, 2);
  EXPECT_EQ(first.concurrency, 2);
  EXPECT_THAT(numbers_of(first), ElementsAre(0, 2, 4));
  const Workload second = replica_share(example(), 1, 2);
  EXPECT_EQ(second.concurrency, 1);
  EXPECT_THAT(numbers_of(second), ElementsAre(1, 3));
  EXPECT_TRUE(second.open);
  // Three requests at once are enough for three replicas.
  EXPECT_THAT(numbers_of(replica_share(example(), 2, 8)), ElementsAre(2));
  EXPECT_THAT(numbers_of(replica_share(example(), 3, 8)), IsEmpty());
}

}  // namespace
}  // namespace paceline::runtime
