#include "runtime/engine/engine.h"

#include <gtest/gtest.h>

#include "kernels/core/error.h"
#include "tests/parallel/rank_threads.h"
#include "tests/runtime/model/fixture_model.h"

namespace paceline::runtime {
namespace {

// Twelve requests, greedy and sampled, with prompts of 1 to 100 tokens.
std::vector<EngineRequest> requests() {
  std::vector<EngineRequest> made;
  for (std::uint64_t uid = 0; uid < 12; ++uid) {
    EngineRequest request;
    request.uid = uid;
    for (std::uint64_t i = 0; i <= uid * 9; ++i) {
      request.prompt.push_back(static_cast<std::int32_t>((i * 31 + uid * 7) % 150));
    }
    request.max_new_tokens = 20;
    request.temperature = uid % 3 == 0 ? 0.0f : 0.5f * static_cast<float>(uid % 3);
    request.top_k = uid % 4 == 1 ? 20 : 0;
    request.top_p = uid % 4 == 2 ? 0.8f : 1.0f;
    request.seed = 1000 + uid;
    made.push_back(request);
  }
  return made;
}

Answers run_alone(const FixtureRank::Options& options) {
  const auto backend = kernels::make_cpu_backend({.threads = 2});
  const auto single = parallel::make_single();
  FixtureRank rank("llama_gqa", options, *backend, *single);
  auto answers = run_to_end(rank.engine(), requests());
  EXPECT_EQ(rank.engine().scheduler().pages().free_pages(), options.limits.num_pages);
  return answers;
}

TEST(Engine, TokensDoNotDependOnCompanyChunksOrPreemption) {
  FixtureRank::Options options;
  const auto expected = run_alone(options);
  ASSERT_EQ(expected.size(), 12u);
  for (const auto& [uid, ids] : expected) EXPECT_LE(ids.size(), 20u);

  options.limits.max_sequences = 1;
  options.limits.max_rows = 1;
  EXPECT_EQ(run_alone(options), expected);
  options.limits.max_sequences = 12;
  options.limits.max_rows = 17;
  EXPECT_EQ(run_alone(options), expected);

  // Five pages of 32 slots for prompts of up to 100 tokens: requests push each other out.
  options.limits.num_pages = 5;
  const auto backend = kernels::make_cpu_backend({});
  const auto single = parallel::make_single();
  FixtureRank rank("llama_gqa", options, *backend, *single);
  EXPECT_EQ(run_to_end(rank.engine(), requests()), expected);
  EXPECT_GT(rank.engine().stats().preemptions, 0);
  EXPECT_EQ(rank.engine().scheduler().pages().free_pages(), 5);
}

TEST(Engine, RanksFollowTheLeadersControl) {
  const auto expected = run_alone({});
  parallel::run_ranks(3, [&](parallel::Communicator& communicator) {
    const auto backend = kernels::make_cpu_backend({});
    FixtureRank rank("llama_gqa", {}, *backend, communicator);
    // Only the leader knows the requests.
    const auto mine = communicator.rank() == 0 ? requests() : std::vector<EngineRequest>{};
    EXPECT_EQ(run_to_end(rank.engine(), mine), expected) << communicator.rank();
  });
}

TEST(Engine, CancelledRequestsLeaveTheirPages) {
  const auto backend = kernels::make_cpu_backend({});
  const auto single = parallel::make_single();
  FixtureRank rank("llama_gqa", {}, *backend, *single);
  Control control;
  control.admit = requests();
  rank.engine().step(control);
  control = {};
  for (std::uint64_t uid = 0; uid < 12; ++uid) control.cancel.push_back(uid);
  EXPECT_TRUE(rank.engine().step(control).empty());
  EXPECT_TRUE(rank.engine().idle());
  EXPECT_EQ(rank.engine().scheduler().pages().free_pages(), 64);
}

TEST(Engine, ARankThatDecidesDifferentlyStopsTheJob) {
  parallel::run_ranks(2, [&](parallel::Communicator& communicator) {
    bool stop = false;
    const auto backend = kernels::make_reference_backend();
    Agreement agreement(communicator, *backend, [&stop] { return stop; });
    agreement.exchange({}, 7);
    // What the last step decided: rank 1 is off.
    const auto disagree = [&] { agreement.exchange({}, communicator.rank() == 0 ? 1234u : 1235u); };
    try {
      disagree();
      FAIL() << "accepted";
    } catch (const FatalError& error) {
      EXPECT_NE(std::string(error.what()).find("ranks 0 and 1"), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("step 1"), std::string::npos) << error.what();
    }
  });
}

TEST(Engine, TerminationOnOneRankReachesAll) {
  parallel::run_ranks(3, [&](parallel::Communicator& communicator) {
    const auto backend = kernels::make_reference_backend();
    Agreement agreement(communicator, *backend, [&] { return communicator.rank() == 2; });
    agreement.exchange({}, 0);
    EXPECT_TRUE(agreement.termination_requested());
  });
}

}  // namespace
}  // namespace paceline::runtime
