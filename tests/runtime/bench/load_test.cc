#include "runtime/bench/load.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "runtime/bench/fixed_tree_drafter.h"
#include "runtime/bench/simulated_acceptance.h"
#include "runtime/job/replica.h"
#include "tests/parallel/rank_threads.h"
#include "tests/runtime/model/fixture_model.h"

namespace paceline::runtime {
namespace {

// Requests of 5 to 9 prompt tokens and 6 new ones.
Workload workload(std::int32_t concurrency) {
  Workload load;
  for (std::uint64_t uid = 0; uid < 5; ++uid) {
    EngineRequest request{.uid = uid, .prompt = {}, .max_new_tokens = 6, .ignore_eos = true};
    for (std::uint64_t i = 0; i < 5 + uid; ++i) {
      request.prompt.push_back(static_cast<std::int32_t>((i * 31 + uid) % 150));
    }
    load.items.push_back({.request = request, .task = static_cast<std::int32_t>(uid)});
  }
  load.concurrency = concurrency;
  return load;
}

// The most requests whose [sent, last token] contain one moment.
int most_in_flight(const LoadRecord& record) {
  int most = 0;
  for (const RequestRecord& one : record.requests) {
    most = std::max(most, static_cast<int>(std::ranges::count_if(
                              record.requests, [&](const RequestRecord& other) {
                                return other.sent <= one.sent && one.sent < other.chunks.back();
                              })));
  }
  return most;
}

// With room for the logits of trees.
FixtureRank::Options options() {
  FixtureRank::Options with_trees;
  with_trees.limits.max_sampled = with_trees.limits.max_rows;
  return with_trees;
}

LoadRecord run(const Workload& load, const Drafting& drafting = {}) {
  const auto backend = kernels::make_cpu_backend({});
  const auto single = parallel::make_single();
  FixtureRank rank("llama_gqa", options(), *backend, *single, drafting);
  return run_load(rank.engine(), load);
}

TEST(RunLoad, RecordsEveryTokenOfAClosedLoad) {
  const LoadRecord record = run(workload(2));
  ASSERT_EQ(record.requests.size(), 5u);
  std::int64_t context_rows = 0;
  std::int64_t generation_rows = 0;
  for (const StepRecord& step : record.steps) {
    context_rows += step.context_rows;
    generation_rows += step.generation_rows;
    EXPECT_GE(step.seconds, step.forward);
  }
  EXPECT_EQ(context_rows, 5 + 6 + 7 + 8 + 9);
  EXPECT_EQ(generation_rows, 5 * 5);  // the first token of each comes with its prompt
  for (std::size_t i = 0; i < 5; ++i) {
    const RequestRecord& request = record.requests[i];
    EXPECT_EQ(request.task, static_cast<std::int32_t>(i));
    EXPECT_EQ(request.prompt_tokens, static_cast<std::int32_t>(5 + i));
    EXPECT_EQ(request.new_tokens, 6);
    EXPECT_EQ(request.chunks.size(), 6u);
    EXPECT_TRUE(std::ranges::is_sorted(request.chunks));
    EXPECT_LE(request.sent, request.chunks.front());
    EXPECT_LE(request.chunks.back(), record.seconds);
    EXPECT_FALSE(request.failed);
  }
  EXPECT_EQ(most_in_flight(record), 2);
  EXPECT_EQ(most_in_flight(run(workload(5))), 5);
}

TEST(RunLoad, AnOpenLoadIsSentByTheClock) {
  Workload load = workload(5);
  load.open = true;
  for (std::size_t i = 0; i < 5; ++i) load.items[i].arrival = 0.02 * static_cast<double>(i);
  const LoadRecord record = run(load);
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(record.requests[i].sent, load.items[i].arrival);
    EXPECT_GE(record.requests[i].chunks.front(), load.items[i].arrival);
  }
  EXPECT_GE(record.seconds, 0.08);
}

TEST(RunLoad, LeadsRanksThatFollow) {
  parallel::run_ranks(2, [](parallel::Communicator& communicator) {
    const auto backend = kernels::make_cpu_backend({});
    FixtureRank rank("llama_gqa", options(), *backend, communicator);
    if (communicator.rank() == 0) {
      EXPECT_EQ(run_load(rank.engine(), workload(3)).requests.size(), 5u);
    } else {
      EXPECT_EQ(follow(rank.engine()), RunEnd::kDone);
    }
    EXPECT_EQ(rank.engine().stats().sampled_tokens, 30);
  });
}

TEST(RunLoad, ItsRecordTravelsWhole) {
  const LoadRecord sent = run(workload(2));
  const LoadRecord got = decode_load(encode_load(sent));
  ASSERT_EQ(got.requests.size(), 5u);
  EXPECT_EQ(got.requests[3].task, 3);
  EXPECT_EQ(got.requests[3].chunks, sent.requests[3].chunks);
  EXPECT_EQ(got.requests[3].sent, sent.requests[3].sent);
  ASSERT_EQ(got.steps.size(), sent.steps.size());
  EXPECT_EQ(got.steps.back().seconds, sent.steps.back().seconds);
  EXPECT_EQ(got.seconds, sent.seconds);
}

// Rows of a step: the last token's and those of a tree of arbitrary tokens, as many as asked for.
TEST(FixedTreeDrafter, GivesAStepItsRows) {
  for (const std::int32_t rows : {1, 2, 4, 7, 33}) {
    FixedTreeDrafter drafter(160);
    Workload load = workload(1);
    load.items.resize(1);
    load.items.front().request.max_new_tokens = 12;
    const LoadRecord record =
        run(load, {.drafter = &drafter, .shape = FixedTreeDrafter::shape_of(rows - 1)});
    EXPECT_EQ(record.requests.front().new_tokens, 12);
    EXPECT_EQ(record.steps.at(1).generation_rows, rows);
  }
}

TEST(SimulatedAcceptance, PinsTheTokensOfAStep) {
  FixedTreeDrafter drafter(160);
  Workload load = workload(5);
  for (Workload::Item& item : load.items) item.request.max_new_tokens = 41;
  const LoadRecord record = run(load, {.drafter = &drafter,
                                       .shape = {.width = 2, .depth = 4},
                                       .override_choices = SimulatedAcceptance(2.5)});
  std::int64_t tokens = 0;
  std::int64_t steps = 0;
  for (const RequestRecord& request : record.requests) {
    EXPECT_EQ(request.new_tokens, 41);
    tokens += request.new_tokens - 1;  // the prompt's own step has no tree
    steps += std::ssize(request.chunks) - 1;
  }
  EXPECT_NEAR(static_cast<double>(tokens) / static_cast<double>(steps), 2.5, 0.15);
}

TEST(SimulatedAcceptance, IsTheSameOnAllRanks) {
  parallel::run_ranks(2, [](parallel::Communicator& communicator) {
    const auto backend = kernels::make_cpu_backend({});
    FixedTreeDrafter drafter(160);
    FixtureRank rank("llama_gqa", options(), *backend, communicator,
                     {.drafter = &drafter,
                      .shape = {.width = 2, .depth = 4},
                      .override_choices = SimulatedAcceptance(3)});
    if (communicator.rank() == 0) {
      run_load(rank.engine(), workload(5));
    } else {
      EXPECT_EQ(follow(rank.engine()), RunEnd::kDone);  // ranks that differed would have thrown
    }
    EXPECT_GT(rank.engine().stats().accepted_at[1], 0);
  });
}

}  // namespace
}  // namespace paceline::runtime
