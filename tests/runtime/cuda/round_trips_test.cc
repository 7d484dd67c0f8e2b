#include <gtest/gtest.h>

#include "drafter/recurrent_drafter.h"
#include "kernels/cuda/backend.h"
#include "runtime/drafting/model_embedding.h"
#include "tests/drafter/random_head.h"
#include "tests/runtime/cuda/few_requests.h"
#include "tests/support/simt/memory.h"

namespace paceline::runtime {
namespace {

struct Copies {
  std::int64_t to_host = 0;
  EngineStats stats;
};

Copies copies_of(FixtureRank& rank) {
  const std::int64_t before = simt::copies_to_host();
  run_to_end(rank.engine(), few_requests());
  return {simt::copies_to_host() - before, rank.engine().stats()};
}

// The host is told what a step accepted, and what it drafted; greedy or sampled, however deep the
// drafts.
TEST(CudaRoundTrips, AStepHasOneAndItsDraftAnother) {
  const auto single = parallel::make_single();
  const auto backend = kernels::make_cuda_backend({});
  FixtureRank plain("llama_int4", {.limits = kAmple}, *backend, *single);
  const Copies without = copies_of(plain);
  EXPECT_GT(without.to_host, 0);
  EXPECT_LE(without.to_host, without.stats.steps);

  drafter::DrafterConfig config;
  config.vocab_size = plain.config().vocab_size;
  config.hidden_size = config.exit_dim = plain.config().hidden_size;
  config.rnn = true;
  ModelEmbedding embedding(plain.model());
  drafter::RecurrentDrafter drafter(config, drafter::RandomWeights(), embedding, *backend);
  FixtureRank drafting("llama_int4", {.limits = kAmple}, *backend, *single,
                       {.drafter = &drafter, .shape = {3, 5, 0}});
  const Copies with = copies_of(drafting);
  EXPECT_GT(with.stats.tree_rows, 0);
  EXPECT_GT(with.to_host, with.stats.steps);
  EXPECT_LE(with.to_host, 2 * with.stats.steps);
}

}  // namespace
}  // namespace paceline::runtime
