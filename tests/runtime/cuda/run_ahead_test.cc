#include <gtest/gtest.h>

#include "kernels/cuda/backend.h"
#include "tests/runtime/cuda/drafting_rank.h"

// While the device does a step the host plans the next one, for whatever this one comes to. What
// it comes to may be any number of tokens, or the end of a request; answers know nothing of it.

namespace paceline::runtime {
namespace {

constexpr drafter::DraftShape kTrees{
    .width = 10, .depth = 2, .max_nodes = 7, .any_candidate = true};

const Answers& expected() {
  static const Answers answers = [] {
    const auto single = parallel::make_single();
    return answers_of(*kernels::make_cpu_backend({}), *single, {});
  }();
  return answers;
}

/// What was drafted and accepted, which is a function of the tokens alone.
auto drafted(const EngineStats& stats) { return std::tuple{stats.tree_rows, stats.accepted_at}; }

TEST(CudaRunAhead, MostStepsArePlannedWhileTheOneBeforeIsUnderWay) {
  const auto single = parallel::make_single();
  const auto backend = kernels::make_cuda_backend({});
  EngineStats stats;
  EXPECT_EQ(answers_of(*backend, *single, {}, &stats), expected());
  EXPECT_GT(stats.steps_ahead, stats.steps / 2);
}

// So many nodes that some are right, though the head has learned nothing.
TEST(CudaRunAhead, TreesAreTheCpusAndPathsOfThemAreAccepted) {
  const drafter::DraftShape wide{.width = 31, .depth = 2, .max_nodes = 31, .any_candidate = true};
  const auto single = parallel::make_single();
  const auto cpu = kernels::make_cpu_backend({}), cuda = kernels::make_cuda_backend({});
  SchedulerLimits limits = kAmple;
  limits.max_sequences = 2;
  DraftingRank on_cpu(wide, *cpu, *single, limits), on_gpu(wide, *cuda, *single, limits);
  EXPECT_EQ(run_to_end(on_cpu.engine(), few_requests()), expected());
  EXPECT_EQ(run_to_end(on_gpu.engine(), few_requests()), expected());
  const EngineStats stats = on_gpu.engine().stats();
  EXPECT_EQ(drafted(stats), drafted(on_cpu.engine().stats()));
  EXPECT_GT(stats.accepted_at[0], 0);
  EXPECT_GT(stats.steps_ahead, stats.steps / 3);
}

// Requests come and go between steps; the pages are too few for all of them.
TEST(CudaRunAhead, RequestsComeAreCancelledAndPushEachOtherOut) {
  const auto single = parallel::make_single();
  const auto backend = kernels::make_cuda_backend({});
  SchedulerLimits limits = kAmple;
  limits.max_sequences = 3;
  limits.num_pages = 3;
  limits.max_rows = 48;
  DraftingRank rank(kTrees, *backend, *single, limits);
  std::vector<EngineRequest> requests = few_requests();
  requests.pop_back();
  for (EngineRequest& request : requests) {  // all outgrow their first page
    request.prompt.assign(56, 3 + static_cast<std::int32_t>(request.uid));
    request.max_new_tokens = 14;
  }
  Answers alone;
  const auto cpu = kernels::make_cpu_backend({});
  {
    FixtureRank oracle("llama_int4", {.kv = kernels::KvFormat::kBf16, .limits = kAmple}, *cpu,
                       *single);
    alone = run_to_end(oracle.engine(), requests);
  }
  std::size_t sent = 1;
  int steps = 0;
  EngineRequest doomed = requests[0];
  doomed.uid = 99;
  Answers answers = run_to_end(rank.engine(), {requests[0]}, [&](Control& control) {
    ++steps;
    if (steps % 3 == 0 && sent < requests.size()) control.admit.push_back(requests[sent++]);
    if (steps == 2) control.admit.push_back(doomed);
    if (steps == 5) control.cancel.push_back(doomed.uid);
  });
  EXPECT_LE(answers[99].size(), 8u);
  answers.erase(99);
  EXPECT_EQ(answers, alone);
  EXPECT_EQ(sent, requests.size());
  const EngineStats stats = rank.engine().stats();
  EXPECT_GT(stats.preemptions, 0);
  EXPECT_GT(stats.steps_ahead, 0);
  EXPECT_EQ(rank.engine().scheduler().pages().free_pages(), limits.num_pages);
}

// The step under way is thrown away.
TEST(CudaRunAhead, StopsWithAStepUnderWay) {
  const auto single = parallel::make_single();
  const auto backend = kernels::make_cuda_backend({});
  DraftingRank rank(kTrees, *backend, *single);
  Control control;
  control.admit = few_requests();
  EXPECT_TRUE(rank.engine().step(control).empty());
  EXPECT_FALSE(rank.engine().step({}).empty());
  control = {};
  control.stop = true;
  EXPECT_TRUE(rank.engine().step(control).empty());
  EXPECT_TRUE(rank.engine().stopped());
}

}  // namespace
}  // namespace paceline::runtime
