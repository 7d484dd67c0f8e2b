#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/core/error.h"
#include "kernels/cpu/ops.h"
#include "kernels/reference/ops.h"
#include "tests/kernels/accept_cases.h"

namespace paceline::kernels {
namespace {

using Ids = std::vector<std::int32_t>;

// Nodes 0 ... 5 with the tokens 1 2 3 4 5 6: the paths 1 2 3, 1 4 5 and 1 2 6.
const Ids kParents = {-1, 0, 1, 0, 3, 1};
const Ids kTokens = {1, 2, 3, 4, 5, 6};
const Ids kChosen = {1, 2, 6, 9, 9, 9, 7};  // after the root 1, after node 0 2, after node 1 6, ...

Ids nodes_of(const AcceptedPath& path) { return {path.nodes, path.nodes + path.count}; }

TEST(AcceptPaths, FollowsTheChosenTokens) {
  Trees trees;
  trees.add({}, {}, {4});
  trees.add(kParents, kTokens, kChosen);
  trees.add(kParents, kTokens, {4, 2, 6, 9, 9, 9, 7});
  const Walked walked = walk(trees, reference::accept_paths);
  EXPECT_EQ(nodes_of(walked.paths[0]), Ids());
  EXPECT_EQ(walked.paths[0].token, 4);
  EXPECT_EQ(nodes_of(walked.paths[1]), (Ids{0, 1, 5}));
  EXPECT_EQ(walked.paths[1].token, 7);
  EXPECT_EQ(walked.paths[1].sequence, 1);
  EXPECT_EQ(walked.paths[1].first_slot, 10);
  EXPECT_EQ(nodes_of(walked.paths[2]), Ids());  // 4 is no child of the root
  EXPECT_EQ(walked.paths[2].token, 4);
  EXPECT_EQ(walked.last_rows, (Ids{0, 1 + 6, 8}));
}

TEST(AcceptPaths, StopsWherePlainDecodingWould) {
  Trees trees{.stop_tokens = {0, 6}};
  trees.add(kParents, kTokens, kChosen);
  trees.add(kParents, kTokens, kChosen, 100, false);
  trees.add(kParents, kTokens, kChosen, 2);
  trees.add(kParents, kTokens, {1, -1, 6, 9, 9, 9, 7});
  const Walked walked = walk(trees, reference::accept_paths);
  EXPECT_EQ(nodes_of(walked.paths[0]), (Ids{0, 1}));
  EXPECT_EQ(walked.paths[0].token, 6);
  EXPECT_EQ(nodes_of(walked.paths[1]), (Ids{0, 1, 5}));
  EXPECT_EQ(nodes_of(walked.paths[2]), Ids{0});
  EXPECT_EQ(walked.paths[2].token, 2);
  EXPECT_EQ(nodes_of(walked.paths[3]), Ids{0});
  EXPECT_EQ(walked.paths[3].token, -1);
}

TEST(AcceptPaths, EveryBackendWalksTheSame) {
  std::int32_t longest = 0;
  for (std::uint32_t seed = 0; seed < 10; ++seed) {
    const Trees trees = random_trees(seed);
    const Walked walked = walk(trees, reference::accept_paths);
    EXPECT_EQ(walk(trees, cpu::accept_paths), walked);
    for (const AcceptedPath& path : walked.paths) longest = std::max(longest, path.count);
  }
  EXPECT_GE(longest, 4);
}

TEST(AcceptPaths, RefusesPathsThatAreTooLong) {
  Ids parents, tokens(kMaxPathLength + 1, 3);
  for (std::int32_t i = 0; i <= kMaxPathLength; ++i) parents.push_back(i - 1);
  Trees trees;
  trees.add(parents, tokens, Ids(kMaxPathLength + 2, 3));
  EXPECT_THROW(walk(trees, reference::accept_paths), FatalError);
  EXPECT_THROW(walk(trees, cpu::accept_paths), FatalError);
}

}  // namespace
}  // namespace paceline::kernels
