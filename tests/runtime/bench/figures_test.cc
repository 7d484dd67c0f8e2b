#include "runtime/bench/figures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace paceline::runtime {
namespace {

using ::testing::ElementsAre;

// Two requests on one replica of two ranks. Request 0: a prompt of 6, first token after 1 s, then 2
// and 1 tokens. Request 1: a prompt of 2 that comes at 1 s and ends with its first token.
//
//   step   seconds  prompt rows  generation rows
//   0      1.0      6            0
//   1      0.8      2            2                   a shared one: half of it is the prompt's
//   2      0.2      0            4                   forward 0.1
JobRun example() {
  LoadRecord replica;
  replica.requests = {
      {.task = 0, .prompt_tokens = 6, .new_tokens = 4, .sent = 0, .chunks = {1.0, 1.8, 2.0}},
      {.task = 1, .prompt_tokens = 2, .new_tokens = 1, .sent = 1, .chunks = {1.8}}};
  replica.steps = {{1.0, 0.9, 6, 0}, {0.8, 0.7, 2, 2}, {0.2, 0.1, 0, 4}};
  replica.seconds = 2;
  JobRun run;
  run.replicas = {replica};
  run.ranks.resize(2);
  for (RankRun& rank : run.ranks) {
    rank.stats.steps = 3;
    rank.stats.time.forward = 1.7;
    rank.stats.tree_rows = 4;
    rank.stats.saved_rows = 1;
    rank.stats.drafted_at = {2, 1};
    rank.stats.accepted_at = {1, 0};
  }
  run.ranks[0].stats.time.draft = 0.03;
  run.ranks[0].exchange_seconds = 0.2;
  run.ranks[1].exchange_seconds = 0.8;
  run.ranks[1].stats.time.agree = 0.3;
  run.ranks[0].joules = 10;
  return run;
}

std::vector<double> values(const std::vector<Figure>& figures, std::string_view name) {
  const Figure* figure = find_figure(figures, name);
  return figure != nullptr ? figure->values : std::vector<double>{};
}

TEST(RunFigures, AWorkedExample) {
  const std::vector<JobRun> runs = {example()};
  const std::vector<Figure> figures = run_figures(runs, 1'000'000'000);
  EXPECT_THAT(values(figures, "duration_s"), ElementsAre(2));
  EXPECT_THAT(values(figures, "request_throughput"), ElementsAre(1));
  EXPECT_THAT(values(figures, "output_throughput"), ElementsAre(2.5));
  EXPECT_THAT(values(figures, "total_token_throughput"), ElementsAre(6.5));
  EXPECT_DOUBLE_EQ(values(figures, "prefill_tokens_per_s").at(0), 8 / 1.4);
  EXPECT_DOUBLE_EQ(values(figures, "decode_tokens_per_s").at(0), 3 / 0.6);
  EXPECT_THAT(values(figures, "tokens_per_step"), ElementsAre(5.0 / 4));
  EXPECT_DOUBLE_EQ(values(figures, "rows_per_step").at(0), 14.0 / 3);
  EXPECT_THAT(values(figures, "tree_size"), ElementsAre(2));
  // One step without prompt rows: a gigabyte in 0.1 s.
  EXPECT_DOUBLE_EQ(values(figures, "weight_gb_per_s").at(0), 10);
  EXPECT_THAT(values(figures, "joules_per_token"), ElementsAre(2));
  EXPECT_DOUBLE_EQ(values(figures, "draft_ms").at(0), 10);
  EXPECT_THAT(values(figures, "preemptions"), ElementsAre(0));
}

TEST(RunFigures, OneValueForEachRunAndNoneForWhatWasNotMeasured) {
  JobRun plain = example();
  plain.ranks[0].joules = -1;
  for (RankRun& rank : plain.ranks) rank.stats.drafted_at = {};
  plain.replicas[0].steps.pop_back();
  const std::vector<JobRun> runs = {plain, plain, plain};
  const std::vector<Figure> figures = run_figures(runs, 1);
  EXPECT_EQ(values(figures, "duration_s").size(), 3u);
  EXPECT_EQ(find_figure(figures, "joules_per_token"), nullptr);
  EXPECT_EQ(find_figure(figures, "tree_size"), nullptr);
  EXPECT_EQ(find_figure(figures, "weight_gb_per_s"), nullptr);
}

// The speeds of replicas add up, the time is that of the slowest.
TEST(RunFigures, OfTwoReplicas) {
  JobRun run = example();
  run.replicas.push_back(run.replicas[0]);
  run.replicas[1].seconds = 4;
  run.ranks.resize(4, run.ranks[1]);
  const std::vector<Figure> figures = run_figures(std::vector<JobRun>{run}, 1'000'000'000);
  EXPECT_THAT(values(figures, "duration_s"), ElementsAre(4));
  EXPECT_THAT(values(figures, "output_throughput"), ElementsAre(2.5));
  EXPECT_DOUBLE_EQ(values(figures, "decode_tokens_per_s").at(0), 2 * 3 / 0.6);
  EXPECT_DOUBLE_EQ(values(figures, "weight_gb_per_s").at(0), 20);
}

TEST(LatencyFigures, AreThoseOfVllm) {
  const std::vector<Figure> figures = latency_figures(std::vector<JobRun>{example()});
  EXPECT_THAT(values(figures, "ttft_ms"), ElementsAre(1000, 800));
  EXPECT_THAT(values(figures, "e2el_ms"), ElementsAre(2000, 800));
  ASSERT_EQ(values(figures, "tpot_ms").size(), 1u);  // a single token has none after it
  EXPECT_DOUBLE_EQ(values(figures, "tpot_ms")[0], 1000.0 / 3);
  ASSERT_EQ(values(figures, "itl_ms").size(), 2u);
  EXPECT_DOUBLE_EQ(values(figures, "itl_ms")[0], 800);
  EXPECT_THAT(values(figures, "decode_step_ms"), ElementsAre(200));
}

TEST(TaskFigures, KeepTasksApart) {
  const std::vector<std::string> names = {"maths", "writing"};
  const std::vector<JobRun> runs = {example(), example()};
  const std::vector<TaskFigures> tasks = task_figures(runs, names);
  ASSERT_EQ(tasks.size(), 2u);
  EXPECT_EQ(tasks[0].name, "maths");
  EXPECT_EQ(tasks[0].requests, 2);
  EXPECT_EQ(tasks[0].new_tokens, 8);
  EXPECT_DOUBLE_EQ(tasks[0].tokens_per_step, 4.0 / 3);
  EXPECT_DOUBLE_EQ(tasks[0].tpot_ms, 1000.0 / 3);
  EXPECT_EQ(tasks[1].tokens_per_step, 1);
  EXPECT_EQ(tasks[1].tpot_ms, 0);
}

TEST(RankFigures, TellWhoWaits) {
  const std::vector<JobRun> runs = {example(), example()};
  const std::vector<RankFigures> ranks = rank_figures(runs);
  ASSERT_EQ(ranks.size(), 2u);
  EXPECT_DOUBLE_EQ(ranks[0].forward_ms, 1700.0 / 3);
  EXPECT_DOUBLE_EQ(ranks[0].compute_ms(), 500);
  EXPECT_DOUBLE_EQ(ranks[1].compute_ms(), 300);
  EXPECT_DOUBLE_EQ(ranks[1].agree_ms, 100);
}

TEST(DraftTotals, AddReplicasAndRunsButNotRanks) {
  const std::vector<JobRun> runs = {example(), example()};
  const EngineStats totals = draft_totals(runs);
  EXPECT_EQ(totals.tree_rows, 8);
  EXPECT_EQ(totals.saved_rows, 2);
  EXPECT_EQ(totals.drafted_at[0], 4);
  EXPECT_EQ(totals.accepted_at[0], 2);
}

TEST(FailedRequests, AreCounted) {
  JobRun run = example();
  EXPECT_EQ(failed_requests(std::vector<JobRun>{run}), 0);
  run.replicas[0].requests[1].failed = true;
  EXPECT_EQ(failed_requests(std::vector<JobRun>{run, run}), 2);
}

}  // namespace
}  // namespace paceline::runtime
