#include <gtest/gtest.h>
#include <test_device.h>

#include <algorithm>

#include "kernels/cuda/ops.h"
#include "kernels/reference/ops.h"
#include "tests/kernels/accept_cases.h"

namespace paceline::kernels {
namespace {

const auto kOnDevice = [](const AcceptPathsParams& params) { cuda::accept_paths(params, nullptr); };

TEST(CudaAcceptPaths, WalksAsTheReferenceDoes) {
  for (std::uint32_t seed = 0; seed < 10; ++seed) {
    const Trees trees = random_trees(seed);
    const Walked expected = walk(trees, reference::accept_paths);
    in_every_order([&] { EXPECT_EQ(walk(trees, kOnDevice), expected); });
  }
}

TEST(CudaAcceptPaths, TrapsOnPathsThatAreTooLong) {
  std::vector<std::int32_t> parents;
  for (std::int32_t i = 0; i <= kMaxPathLength; ++i) parents.push_back(i - 1);
  Trees trees;
  trees.add(parents, std::vector<std::int32_t>(kMaxPathLength + 1, 3),
            std::vector<std::int32_t>(kMaxPathLength + 2, 3));
  expect_trap([&] { walk(trees, kOnDevice); });
}

}  // namespace
}  // namespace paceline::kernels
