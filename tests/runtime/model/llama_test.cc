#include "runtime/model/llama.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/core/error.h"
#include "tests/parallel/rank_threads.h"
#include "tests/runtime/model/fixture_model.h"

namespace paceline::runtime {
namespace {

using Ids = std::vector<std::int32_t>;

class FixtureModels : public testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(Families, FixtureModels,
                         testing::Values("llama_gqa", "llama_mha_tied", "llama_mqa", "qwen2_bias",
                                         "mistral", "llama3_rope", "llama_bf16", "llama_fp16",
                                         "llama_sharded", "llama_ffn5", "llama_int4",
                                         "llama_int8"));

// Every logit that transformers computes in fp32 (eager attention), up to rounding: both sum in
// orders of their own, and the largest logits are about 10.
TEST_P(FixtureModels, LogitsEqualTransformers) {
  constexpr float kMaxError = 2e-4f;
  const Json fixture = read_json(fixture_dir(GetParam()) / "fixture.json");
  const auto backend = kernels::make_cpu_backend({});
  const auto single = parallel::make_single();
  FixtureRank rank(GetParam(), {.weights = WeightChoice::kFp32}, *backend, *single);
  const auto vocab = static_cast<std::size_t>(rank.model().config().vocab_size);
  float worst = 0;
  for (const Json& prompt : fixture.at("prompts")) {
    const auto ids = prompt.at("ids").get<Ids>();
    const std::vector<float> logits = sequence_logits(rank, *backend, ids, 100);
    auto row = prompt.at("first_row").get<std::size_t>();
    for (const Json& expected : prompt.at("logits")) {
      ASSERT_EQ(expected.size(), vocab);
      for (std::size_t token = 0; token < vocab; ++token) {
        worst =
            std::max(worst, std::abs(expected[token].get<float>() - logits[row * vocab + token]));
      }
      ++row;
    }
    EXPECT_EQ(row, ids.size());
  }
  EXPECT_LE(worst, kMaxError);
  RecordProperty("max_error", std::to_string(worst));
}

// The reference backend is the oracle of every kernel; the whole model gives its bits on every
// instruction set, however the sequence is cut into chunks.
TEST_P(FixtureModels, EveryBackendAndChunkingGivesTheSameBits) {
  const Json fixture = read_json(fixture_dir(GetParam()) / "fixture.json");
  const auto ids = fixture.at("prompts").at(2).at("ids").get<Ids>();  // crosses position 256
  const auto single = parallel::make_single();
  const auto reference = kernels::make_reference_backend();
  for (const kernels::KvFormat kv : {kernels::KvFormat::kBf16, kernels::KvFormat::kInt8}) {
    FixtureRank oracle(GetParam(), {.kv = kv}, *reference, *single);
    const std::vector<float> expected = sequence_logits(oracle, *reference, ids, 300);
    for (const std::string_view isa : kernels::supported_isas()) {
      const auto backend = kernels::make_cpu_backend({.threads = 2, .isa = std::string(isa)});
      FixtureRank rank(GetParam(), {.kv = kv}, *backend, *single);
      for (const std::int32_t chunk : {300, 37}) {
        EXPECT_TRUE(sequence_logits(rank, *backend, ids, chunk) == expected)
            << isa << " in chunks of " << chunk << ", kv " << kernels::format_name(kv);
      }
    }
  }
}

// Ranks are threads here; tests/equality does the same with processes under mpirun.
TEST_P(FixtureModels, EveryNumberOfRanksGivesTheSameBits) {
  const Json fixture = read_json(fixture_dir(GetParam()) / "fixture.json");
  const auto ids = fixture.at("prompts").at(1).at("ids").get<Ids>();
  const auto logits_on = [&](int ranks) {
    std::vector<float> logits;
    parallel::run_ranks(ranks, [&](parallel::Communicator& communicator) {
      const auto backend = kernels::make_cpu_backend({});
      FixtureRank rank(GetParam(), {}, *backend, communicator);
      const std::vector<float> mine = sequence_logits(rank, *backend, ids, 5);
      if (communicator.rank() == communicator.size() - 1) logits = mine;
    });
    return logits;
  };
  const std::vector<float> expected = logits_on(1);
  for (const int ranks : {2, 3, 5, 8}) EXPECT_TRUE(logits_on(ranks) == expected) << ranks;
}

TEST(ShardPlan, DealsWholeQuantizationGroups) {
  // Heads of 16 columns in groups of 32: two heads an atom; 96 FFN columns are three atoms.
  ModelConfig config;
  config.hidden_size = 64;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 16;
  config.intermediate_size = 96;
  config.vocab_size = 100;
  const WeightFormats int4{kernels::WeightFormat::kInt4Group, kernels::WeightFormat::kInt8Group,
                           ""};
  const ShardPlan plan = plan_shards(config, int4, 8, 4, 0);
  using Range = kernels::IndexRange;
  EXPECT_EQ(plan.heads[0], (Range{0, 2}));
  EXPECT_EQ(plan.heads[1], (Range{2, 4}));
  EXPECT_EQ(plan.heads[2].size(), 0);
  EXPECT_EQ(plan.ffn[2], (Range{64, 96}));
  EXPECT_EQ(plan.ffn[3].size(), 0);
  EXPECT_EQ(plan.shards, (Range{0, 2}));
  EXPECT_EQ(plan.query_heads, (Range{0, 4}));
  EXPECT_EQ(plan.kv_heads, (Range{0, 2}));
  EXPECT_EQ(plan.kv_head_of_query(), (Ids{0, 0, 1, 1}));
  EXPECT_EQ(plan_shards(config, int4, 8, 4, 3).query_heads.size(), 0);
  EXPECT_THROW(plan_shards(config, int4, 8, 9, 0), ConfigError);
}

TEST(NumericsId, NamesWhatBitsDependOn) {
  const WeightFormats int4{kernels::WeightFormat::kInt4Group, kernels::WeightFormat::kInt8Group,
                           ""};
  EXPECT_EQ(numerics_id("cpu", int4, 8, kernels::KvFormat::kBf16),
            "cpu,w=int4g32/a32,vocab=int8g32/a32,v=8,kv=bf16,segment=256");
  EXPECT_EQ(numerics_id("cpu", int4, 8, kernels::KvFormat::kInt8),
            "cpu,w=int4g32/a32,vocab=int8g32/a32,v=8,kv=int8,segment=256");
  EXPECT_EQ(numerics_id("cuda", int4, 8, kernels::KvFormat::kBf16, 4),
            "cuda,w=int4g32/a32,vocab=int8g32/a32,v=8,kv=bf16,segment=256,sum=nccl/tp4");
  const WeightFormats fp8{kernels::WeightFormat::kFp8, kernels::WeightFormat::kFp8, ""};
  EXPECT_EQ(numerics_id("cuda", fp8, 8, kernels::KvFormat::kBf16),
            "cuda,w=fp8,vocab=fp8,v=8,kv=bf16,segment=256");
  const WeightFormats bf16{kernels::WeightFormat::kBf16, kernels::WeightFormat::kBf16, ""};
  EXPECT_EQ(numerics_id("cpu", bf16, 8, kernels::KvFormat::kBf16),
            "cpu,w=bf16,vocab=bf16,v=8,kv=bf16,segment=256,bf16=dpbf16");
  EXPECT_EQ(numerics_id("cuda", bf16, 8, kernels::KvFormat::kBf16),
            "cuda,w=bf16,vocab=bf16,v=8,kv=bf16,segment=256,bf16=mma");
  EXPECT_EQ(
      numerics_id("cuda", bf16, 8, kernels::KvFormat::kInt8, 0, kernels::AttentionMath::kBf16),
      "cuda,w=bf16,vocab=bf16,v=8,kv=int8,segment=256,attention=bf16,bf16=mma");
  EXPECT_EQ(numerics_id("cuda,linear=cublaslt130100/sm_90x132", bf16, 8, kernels::KvFormat::kBf16),
            "cuda,linear=cublaslt130100/sm_90x132,w=bf16,vocab=bf16,v=8,kv=bf16,segment=256,"
            "bf16=mma");
}

}  // namespace
}  // namespace paceline::runtime
