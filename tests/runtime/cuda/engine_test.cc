#include <gtest/gtest.h>

#include "drafter/lookup.h"
#include "drafter/merged_drafter.h"
#include "drafter/recurrent_drafter.h"
#include "kernels/cuda/backend.h"
#include "runtime/drafting/model_embedding.h"
#include "tests/drafter/random_head.h"
#include "tests/parallel/rank_threads.h"
#include "tests/runtime/cuda/few_requests.h"

// The whole engine on CUDA's backend, whose kernels run on the CPU here (tests/support/simt). Its
// device memory cannot be touched by the host, so what works here does without shortcuts on a GPU.

namespace paceline::runtime {
namespace {

// Weights whose products have one order of operations on every backend: integers, and fp32.
class CudaModels : public testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(Formats, CudaModels,
                         testing::Values("llama_int4", "llama_int8", "llama_gqa", "qwen2_bias"));

TEST_P(CudaModels, LogitsAreTheReferencesInChunksAndOnRanks) {
  const Json fixture = read_json(fixture_dir(GetParam()) / "fixture.json");
  const auto ids = fixture.at("prompts").at(1).at("ids").get<Ids>();
  const auto single = parallel::make_single();
  const auto reference = kernels::make_reference_backend();
  FixtureRank oracle(GetParam(), {.kv = kernels::KvFormat::kBf16}, *reference, *single);
  const std::vector<float> expected = sequence_logits(oracle, *reference, ids, 300);
  for (const int ranks : {1, 3}) {
    parallel::run_ranks(ranks, [&](parallel::Communicator& communicator) {
      const auto backend = kernels::make_cuda_backend({});
      FixtureRank rank(GetParam(), {.kv = kernels::KvFormat::kBf16}, *backend, communicator);
      EXPECT_TRUE(sequence_logits(rank, *backend, ids, 7) == expected) << ranks << " ranks";
    });
  }
}

// Greedy and sampled, guesses right and wrong, so that trees are verified and keys moved.
TEST(CudaEngine, AnswersAreTheCpusWithAndWithoutDrafts) {
  const auto single = parallel::make_single();
  const auto cpu = kernels::make_cpu_backend({});
  const Answers expected = answers_of(*cpu, *single, {});
  for (const int ranks : {1, 2}) {
    parallel::run_ranks(ranks, [&](parallel::Communicator& communicator) {
      const auto backend = kernels::make_cuda_backend({});
      EXPECT_EQ(answers_of(*backend, communicator, {}), expected);
      if (ranks == 1) {  // above, steps of the same size were recorded and repeated
        EXPECT_EQ(answers_of(*kernels::make_cuda_backend({.graphs = false}), communicator, {}),
                  expected);
      }
      Oracle oracle(few_requests(), expected);
      EngineStats stats;
      EXPECT_EQ(
          answers_of(*backend, communicator, {.drafter = &oracle, .shape = {2, 4, 8}}, &stats),
          expected);
      EXPECT_GT(stats.accepted_at[0], 0);
    });
  }
}

// A ReDrafter head that drafts on the device drafts what it drafts on the CPU.
TEST(CudaEngine, AHeadDraftsTheSameTrees) {
  const auto single = parallel::make_single();
  const auto drafts_of = [&](kernels::Backend& backend) {
    FixtureRank rank("llama_int4", {.kv = kernels::KvFormat::kBf16, .limits = kAmple}, backend,
                     *single);
    drafter::DrafterConfig config;
    config.vocab_size = rank.config().vocab_size;
    config.hidden_size = config.exit_dim = rank.config().hidden_size;
    config.num_draft_layers = 1;
    config.rnn = true;
    ModelEmbedding embedding(rank.model());
    drafter::RecurrentDrafter drafter(config, drafter::RandomWeights(), embedding, backend);
    EngineStats stats;
    const Answers answers =
        answers_of(backend, *single, {.drafter = &drafter, .shape = {3, 3, 0}}, &stats);
    return std::pair{answers, std::pair{stats.tree_rows, stats.accepted_at}};
  };
  const auto expected = drafts_of(*kernels::make_cpu_backend({}));
  EXPECT_GT(expected.second.first, 0);
  EXPECT_EQ(drafts_of(*kernels::make_cuda_backend({})), expected);
}

}  // namespace
}  // namespace paceline::runtime
