#include "runtime/job/replica.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>

#include "tests/parallel/rank_threads.h"
#include "tests/runtime/engine/rule_drafters.h"

namespace paceline::runtime {
namespace {

// Hands out requests `at_once` at a time and keeps what is reported.
class ListedWork : public WorkSource {
 public:
  explicit ListedWork(std::size_t count, std::size_t at_once) : count_(count), at_once_(at_once) {}

  std::vector<WorkItem> take(std::size_t wanted) override {
    std::vector<WorkItem> items;
    while (items.size() < std::min(wanted, at_once_) && next_ < count_) {
      WorkItem item;
      item.index = static_cast<std::int64_t>(next_);
      for (std::size_t i = 0; i <= next_ * 3; ++i) {
        item.prompt.push_back(static_cast<std::int32_t>((i * 13 + next_) % 150));
      }
      item.max_new_tokens = static_cast<std::int32_t>(4 + next_ % 7);
      item.temperature = next_ % 2 == 0 ? 0.0f : 1.0f;
      item.seed = next_;
      items.push_back(item);
      ++next_;
    }
    return items;
  }
  bool exhausted() const override { return next_ == count_; }
  void report(WorkResult result) override {
    const auto index = result.index;
    EXPECT_TRUE(results.emplace(index, std::move(result.token_ids)).second) << index;
  }

  std::map<std::int64_t, Ids> results;

 private:
  std::size_t count_;
  std::size_t at_once_;
  std::size_t next_ = 0;
};

std::map<std::int64_t, Ids> answers_on(int ranks, std::size_t at_once) {
  ListedWork work(20, at_once);
  parallel::run_ranks(ranks, [&](parallel::Communicator& communicator) {
    const auto backend = kernels::make_cpu_backend({});
    FixtureRank rank("qwen2_bias", {}, *backend, communicator);
    if (communicator.rank() == 0) {
      EXPECT_EQ(ReplicaLeader(rank.engine(), nullptr, work).run(), RunEnd::kDone);
    } else {
      EXPECT_EQ(follow(rank.engine()), RunEnd::kDone);
    }
    EXPECT_EQ(rank.engine().scheduler().pages().free_pages(), 64);
  });
  return work.results;
}

TEST(ReplicaLeader, AnswersEveryRequestOnceWhateverTheOrderTheyComeIn) {
  const auto expected = answers_on(1, 100);
  EXPECT_EQ(expected.size(), 20u);
  EXPECT_EQ(answers_on(1, 1), expected);
  EXPECT_EQ(answers_on(3, 3), expected);
}

/// Sixty requests for 40 tokens each, with those stop strings.
class StoppedWork : public WorkSource {
 public:
  explicit StoppedWork(std::vector<std::string> stops) : stops_(std::move(stops)) {}
  static Ids prompt(std::int64_t index) {
    Ids prompt;
    for (std::int64_t i = 0; i <= index; ++i) {
      prompt.push_back(static_cast<std::int32_t>((i * 13 + index) % kGuessed));
    }
    return prompt;
  }
  std::vector<WorkItem> take(std::size_t wanted) override {
    std::vector<WorkItem> items;
    for (; items.size() < wanted && !exhausted(); ++next_) {
      WorkItem& item = items.emplace_back();
      item.index = next_;
      item.prompt = prompt(next_);
      item.max_new_tokens = 40;
      item.temperature = next_ % 3 == 0 ? 0.0f : 1.0f;
      item.seed = static_cast<std::uint64_t>(next_);
      item.stop = stops_;
    }
    return items;
  }
  bool exhausted() const override { return next_ == 60; }
  void report(WorkResult result) override {
    const auto index = result.index;
    results.emplace(index, std::move(result));
  }
  std::map<std::int64_t, WorkResult> results;

 private:
  std::vector<std::string> stops_;
  std::int64_t next_ = 0;
};

TEST(ReplicaLeader, AStopStringInAnAcceptedRunCutsItWherePlainDecodingStops) {
  const std::filesystem::path path =
      std::filesystem::path(PACELINE_TEST_DATA) / "tokenizer" / "gpt2.json";
  const Tokenizer tokenizer = Tokenizer::parse(read_json(path), path.string());
  const auto run = [&](const std::vector<std::string>& stops, drafter::Drafter* drafter,
                       std::int32_t pages) {
    SchedulerLimits limits = kAmple;
    limits.num_pages = pages;
    const auto backend = kernels::make_cpu_backend({});
    const auto single = parallel::make_single();
    FixtureRank rank("llama_gqa", {.limits = limits}, *backend, *single,
                     {.drafter = drafter, .shape = {2, 5, 0}});
    StoppedWork work(stops);
    EXPECT_EQ(ReplicaLeader(rank.engine(), &tokenizer, work).run(), RunEnd::kDone);
    EXPECT_EQ(rank.engine().scheduler().pages().free_pages(), pages);
    return work.results;
  };
  const std::vector<std::string> stops = {"a", "e", "i", "o", "u", "1", ","};
  const auto whole = run({}, nullptr, 64);
  const auto expected = run(stops, nullptr, 64);

  // Knows what would follow the stop strings, too: runs are accepted beyond them.
  std::vector<EngineRequest> requests;
  Answers answers;
  int cut = 0;
  for (const auto& [index, result] : whole) {
    EngineRequest& request = requests.emplace_back();
    request.uid = request.seed = static_cast<std::uint64_t>(index);
    request.prompt = StoppedWork::prompt(index);
    answers[request.uid] = result.token_ids;
    cut += expected.at(index).token_ids.size() < result.token_ids.size();
  }
  EXPECT_GT(cut, 20);
  Oracle oracle(requests, answers);
  for (const std::int32_t pages : {4, 64}) {
    const auto results = run(stops, &oracle, pages);
    ASSERT_EQ(results.size(), 60u);
    for (const auto& [index, result] : results) {
      EXPECT_EQ(result.token_ids, expected.at(index).token_ids) << index;
      EXPECT_EQ(result.text, expected.at(index).text) << index;
      EXPECT_EQ(result.end, expected.at(index).end) << index;
    }
  }
}

TEST(ReplicaLeader, DropsWhatRunsWhenARankIsAskedToEnd) {
  std::atomic<bool> asked = false;
  const auto backend = kernels::make_cpu_backend({});
  const auto single = parallel::make_single();
  const std::filesystem::path dir = fixture_dir("llama_gqa");
  const ModelConfig config = read_model_config(dir);
  const Checkpoint checkpoint = Checkpoint::open(dir);
  const WeightFormats formats = choose_formats(checkpoint, config, WeightChoice::kAuto);
  const ShardPlan plan = plan_shards(config, formats, 8, 1, 0);
  const KvCache cache(config, plan, kernels::KvFormat::kFp32, 64, *backend);
  LlamaModel model(config, checkpoint, plan, formats, {.max_rows = 64, .max_sampled = 8}, *backend,
                   *single);
  Engine engine(model, *backend, *single,
                {.max_sequences = 2, .max_rows = 64, .page_size = kPageSize, .num_pages = 64},
                cache.pool(),
                {.terminate = [&] { return asked.load(); },
                 .enter_phase =
                     [&, steps = 0](std::string_view) mutable {
                       asked = ++steps > 20;  // two a step
                     }});
  ListedWork work(20, 100);
  EXPECT_EQ(ReplicaLeader(engine, nullptr, work).run(), RunEnd::kTerminated);
  EXPECT_GT(work.results.size(), 0u);
  EXPECT_LT(work.results.size(), 20u);
}

}  // namespace
}  // namespace paceline::runtime
