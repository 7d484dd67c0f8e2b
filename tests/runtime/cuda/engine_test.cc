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

// fp8's activations are rounded to fp16 here, so that its logits are near the reference's; they are
// the same in chunks of any size and on any number of ranks.
TEST(CudaModel, Fp8IsItsOwnInChunksAndOnRanksAndNearTheReference) {
  const Ids ids = {5, 9, 2, 40, 7, 7, 31, 8, 1, 60, 3, 12};
  const auto single = parallel::make_single();
  const auto reference = kernels::make_reference_backend();
  FixtureRank oracle("llama_gqa", {.weights = WeightChoice::kFp8}, *reference, *single);
  const std::vector<float> near = sequence_logits(oracle, *reference, ids, 12);
  const auto cuda = kernels::make_cuda_backend({});
  FixtureRank alone("llama_gqa", {.weights = WeightChoice::kFp8}, *cuda, *single);
  const std::vector<float> expected = sequence_logits(alone, *cuda, ids, 12);
  ASSERT_EQ(expected.size(), near.size());
  float worst = 0, largest = 0;
  for (std::size_t i = 0; i < near.size(); ++i) {
    worst = std::max(worst, std::abs(expected[i] - near[i]));
    largest = std::max(largest, std::abs(near[i]));
  }
  EXPECT_GT(worst, 0);
  EXPECT_LT(worst, largest / 64);
  for (const int ranks : {1, 3}) {
    parallel::run_ranks(ranks, [&](parallel::Communicator& communicator) {
      const auto backend = kernels::make_cuda_backend({});
      FixtureRank rank("llama_gqa", {.weights = WeightChoice::kFp8}, *backend, communicator);
      EXPECT_TRUE(sequence_logits(rank, *backend, ids, 5) == expected) << ranks << " ranks";
    });
  }
}

// Attention in bf16, which only tensor cores have: its bits are others than those of fp32, near
// them, and the same in chunks of any size and on any number of ranks.
TEST(CudaModel, AttentionInBf16IsItsOwnInChunksAndOnRanks) {
  Ids ids;  // more than a segment
  for (std::int32_t i = 0; i < 264; ++i) ids.push_back(i * i % 61);
  const auto single = parallel::make_single();
  const auto cuda = kernels::make_cuda_backend({});
  for (const kernels::KvFormat kv : {kernels::KvFormat::kBf16, kernels::KvFormat::kInt8}) {
    const FixtureRank::Options bf16{.kv = kv, .attention = kernels::AttentionMath::kBf16};
    FixtureRank in_fp32("llama_bf16", {.kv = kv}, *cuda, *single);
    const std::vector<float> near = sequence_logits(in_fp32, *cuda, ids, 300);
    FixtureRank alone("llama_bf16", bf16, *cuda, *single);
    const std::vector<float> expected = sequence_logits(alone, *cuda, ids, 300);
    float worst = 0, largest = 0;
    for (std::size_t i = 0; i < near.size(); ++i) {
      worst = std::max(worst, std::abs(expected[i] - near[i]));
      largest = std::max(largest, std::abs(near[i]));
    }
    EXPECT_GT(worst, 0);
    EXPECT_LT(worst, largest / 32);
    for (const int ranks : {1, 3}) {
      parallel::run_ranks(ranks, [&](parallel::Communicator& communicator) {
        const auto backend = kernels::make_cuda_backend({});
        FixtureRank rank("llama_bf16", bf16, *backend, communicator);
        EXPECT_TRUE(sequence_logits(rank, *backend, ids, 51) == expected) << ranks << " ranks";
      });
    }
  }
}

// Steps of the same sizes, recorded for one model, are not those of another on the same backend,
// nor of the same model with another cache.
TEST(CudaModel, TwoModelsOfOneBackendAreToldApart) {
  const auto single = parallel::make_single();
  const auto reference = kernels::make_reference_backend();
  const auto cuda = kernels::make_cuda_backend({});
  const Ids ids = {5, 9, 2, 40, 7, 7, 31, 8, 1, 60, 3, 12};
  FixtureRank first("llama_int4", {}, *cuda, *single);
  FixtureRank second("llama_int8", {}, *cuda, *single);
  FixtureRank first_oracle("llama_int4", {}, *reference, *single);
  FixtureRank second_oracle("llama_int8", {}, *reference, *single);
  const KvCache other(first.config(), first.model().plan(), kernels::KvFormat::kFp32, 8, *cuda);
  for (int round = 0; round < 2; ++round) {  // in the second nothing is allocated any more
    EXPECT_TRUE(sequence_logits(first, *cuda, ids, 3) ==
                sequence_logits(first_oracle, *reference, ids, 3));
    EXPECT_TRUE(sequence_logits(second, *cuda, ids, 3) ==
                sequence_logits(second_oracle, *reference, ids, 3));
  }
  const auto hidden_of = [&](const Ids& tokens, std::int32_t begin, const KvCache& cache) {
    const float* device = first.model().forward(rows_of(tokens, begin, begin + 3), cache.pool());
    std::vector<float> hidden(static_cast<std::size_t>(3 * first.config().hidden_size));
    cuda->download(hidden.data(), device, hidden.size() * sizeof(float));
    return hidden;
  };
  const std::vector<float> expected = hidden_of(ids, 9, first.cache());
  for (const std::int32_t begin : {0, 3, 6}) hidden_of({ids.rbegin(), ids.rend()}, begin, other);
  EXPECT_TRUE(hidden_of(ids, 9, first.cache()) == expected);
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

// With bf16 weights, whose products and attention tensor cores compute, answers are compared with
// those of one rank without drafts.
TEST(CudaEngine, AnswersInBf16DoNotDependOnDraftsAndRanks) {
  const FixtureNumbers bf16{.model = "llama_bf16", .attention = kernels::AttentionMath::kBf16};
  const auto single = parallel::make_single();
  const Answers expected = answers_of(*kernels::make_cuda_backend({}), *single, {}, nullptr, bf16);
  for (const int ranks : {1, 2}) {
    parallel::run_ranks(ranks, [&](parallel::Communicator& communicator) {
      const auto backend = kernels::make_cuda_backend({});
      Oracle oracle(few_requests(), expected);
      EngineStats stats;
      EXPECT_EQ(answers_of(*backend, communicator, {.drafter = &oracle, .shape = {2, 4, 8}}, &stats,
                           bf16),
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
