#include "runtime/job/replica.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>

#include "tests/parallel/rank_threads.h"
#include "tests/runtime/model/fixture_model.h"

namespace paceline::runtime {
namespace {

using Ids = std::vector<std::int32_t>;

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
