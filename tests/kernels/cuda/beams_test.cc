#include "tests/kernels/beam_cases.h"

#include <gtest/gtest.h>
#include <test_device.h>

#include "kernels/core/error.h"
#include "kernels/cuda/ops.h"
#include "kernels/reference/ops.h"

namespace paceline::kernels {
namespace {

constexpr BeamOps kReference = {reference::place_beams, reference::extend_beams,
                                reference::merge_beams};
constexpr BeamOps kCuda = {
    [](const PlaceBeamsParams& params) { cuda::place_beams(params, nullptr); },
    [](const ExtendBeamsParams& params) { cuda::extend_beams(params, nullptr); },
    [](const MergeBeamsParams& params) { cuda::merge_beams(params, nullptr); }};

TEST(CudaBeams, RowsPathsAndTreesAreTheReferences) {
  for (std::uint32_t seed = 0; seed < 12; ++seed) {
    SCOPED_TRACE(seed);
    const std::int32_t width = seed % 6 == 0 ? kMaxBeams : 6;
    const std::int32_t k = seed % 4 == 3 ? 3 : 50;
    const std::vector<double> expected = all_results(kReference, seed, width, k);
    in_every_order([&] { EXPECT_TRUE(all_results(kCuda, seed, width, k) == expected); });
  }
}

// More searches than a block has threads.
TEST(CudaBeams, RowsOfManySearches) {
  std::vector<BeamPlan> plans(600, {.width = 3, .depth = 2});
  for (std::size_t s = 0; s < plans.size(); ++s) plans[s].root = static_cast<std::int32_t>(s);
  Searches expected(plans, 700, 1);
  kReference.place(expected.place(true));
  in_every_order([&] {
    Searches searches(plans, 700, 1);
    kCuda.place(searches.place(true));
    EXPECT_EQ(searches.num_rows, 600);
    EXPECT_EQ(searches.tokens, expected.tokens);
    for (std::size_t s = 0; s < plans.size(); ++s) {
      EXPECT_EQ(searches.states[s].first_row, static_cast<std::int32_t>(s));
    }
  });
}

TEST(CudaBeams, RefusesWhatThereIsNoRoomFor) {
  const std::vector<BeamPlan> plans(3, {.width = 2, .depth = 1});
  Searches searches(plans, 2, 1);
  expect_trap([&] { kCuda.place(searches.place(true)); });
  const Candidates candidates{.k = kMaxTopLogProbs + 1};
  EXPECT_THROW(kCuda.extend(searches.extend(candidates, nullptr)), FatalError);
}

}  // namespace
}  // namespace paceline::kernels
