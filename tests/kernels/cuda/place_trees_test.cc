#include <gtest/gtest.h>
#include <test_device.h>

#include "kernels/cuda/ops.h"
#include "kernels/reference/ops.h"
#include "tests/kernels/place_cases.h"

namespace paceline::kernels {
namespace {

const auto kResume = [](const ResumeSequencesParams& params) {
  cuda::resume_sequences(params, nullptr);
};
const auto kPlace = [](const PlaceTreesParams& params) { cuda::place_trees(params, nullptr); };

TEST(CudaPlaceTrees, DoesAsTheReferenceDoes) {
  for (std::uint32_t seed = 0; seed < 5; ++seed) {
    const Placing batch = random_placing(seed);
    const Placed expected = place(batch, reference::resume_sequences, reference::place_trees);
    in_every_order([&] { EXPECT_EQ(place(batch, kResume, kPlace), expected); });
  }
}

TEST(CudaPlaceTrees, TrapsOnTreesThatDoNotFit) {
  Placing large{.most_nodes = 2};
  large.add_sequence(9, 50, 1, 1);
  large.add_tree({{.token = 1, .depth = 1}, {.token = 2, .depth = 1}});
  expect_trap([&] { place(large, kResume, kPlace); });
}

}  // namespace
}  // namespace paceline::kernels
