#include <gtest/gtest.h>

#include "drafter/recurrent_drafter.h"
#include "kernels/cuda/backend.h"
#include "tests/runtime/cuda/drafting_rank.h"
#include "tests/runtime/cuda/few_requests.h"
#include "tests/support/simt/memory.h"

namespace paceline::runtime {
namespace {

struct Waits {
  std::int64_t waits = 0;
  EngineStats stats;
};

Waits waits_of(Engine& engine) {
  std::vector<EngineRequest> again = few_requests();
  again.resize(3);
  run_to_end(engine, again);  // now nothing is allocated any more
  const std::int64_t before = simt::host_waits();
  const std::int64_t steps = engine.stats().steps;
  for (EngineRequest& request : again) request.uid += 100;
  run_to_end(engine, again);
  Waits waits{simt::host_waits() - before, engine.stats()};
  waits.stats.steps -= steps;
  return waits;
}

// The host is told what a step came to, and what it drafted, in one; greedy or sampled, however
// deep the drafts. A step whose requests have all ended it does not ask for.
TEST(CudaRoundTrips, AStepHasOneWithItsDraft) {
  const auto single = parallel::make_single();
  const auto backend = kernels::make_cuda_backend({});
  FixtureRank plain("llama_int4", {.limits = kAmple}, *backend, *single);
  const Waits without = waits_of(plain.engine());
  EXPECT_GT(without.stats.steps, 8);
  EXPECT_EQ(without.waits, without.stats.steps);

  DraftingRank drafting({3, 3, 0}, *backend, *single);
  const Waits with = waits_of(drafting.engine());
  EXPECT_GT(with.stats.tree_rows, 0);
  EXPECT_EQ(with.waits, with.stats.steps);

  // More rows than cost nothing: the host looks at the trees first, to leave idle ones out.
  DraftingRank wide({8, 3, 0}, *backend, *single);
  const Waits more = waits_of(wide.engine());
  EXPECT_GT(more.waits, more.stats.steps);
  EXPECT_LE(more.waits, 2 * more.stats.steps);
}

}  // namespace
}  // namespace paceline::runtime
