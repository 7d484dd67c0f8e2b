#include "drafter/acceptance.h"

#include <gtest/gtest.h>

#include <set>

#include "kernels/api.h"
#include "tests/drafter/random_tree.h"
#include "tests/drafter/slow_acceptance.h"

namespace paceline::drafter {
namespace {

/// The op, for one tree, on the reference backend.
Accepted accept(const TokenTree& tree, const Tokens& chosen, const Tokens& stop_tokens) {
  Tokens tokens = {-1}, parents = {-1};
  for (const TreeNode& node : tree.nodes()) {
    tokens.push_back(node.token);
    parents.push_back(node.parent);
  }
  const kernels::AcceptPlan plan{.nodes = tree.size(), .most_tokens = 1000};
  kernels::AcceptedPath path;
  std::int32_t last_row = -1;
  kernels::make_reference_backend()->accept_paths({.plans = &plan,
                                                   .chosen = chosen.data(),
                                                   .tokens = tokens.data(),
                                                   .parents = parents.data(),
                                                   .stop_tokens = stop_tokens.data(),
                                                   .num_stop_tokens = std::ssize(stop_tokens),
                                                   .paths = &path,
                                                   .last_rows = &last_row,
                                                   .trees = 1});
  Accepted accepted;
  for (std::int32_t i = 0; i < path.count; ++i) {
    accepted.nodes.push_back(path.nodes[i]);
    accepted.tokens.push_back(tree.nodes()[path.nodes[i]].token);
  }
  accepted.tokens.push_back(path.token);
  EXPECT_EQ(last_row, path.count == 0 ? 0 : accepted.nodes.back() + 1);
  return accepted;
}

// A base model that chooses by a hash of what it has seen; decoded one token at a time, for as long
// as the tree has the path.
TEST(Accept, RandomTreesGiveWhatPlainDecodingGives) {
  std::mt19937 random(4);
  std::size_t longest = 0;
  for (int round = 0; round < 1000; ++round) {
    const TokenTree tree = random_tree(random, static_cast<int>(random() % 60), 2);
    const std::uint32_t seed = static_cast<std::uint32_t>(random());
    const auto next = [&](const Tokens& path) {
      std::uint32_t hash = seed;
      for (const std::int32_t token : path)
        hash = (hash ^ static_cast<std::uint32_t>(token)) * 48271u + 11u;
      return static_cast<std::int32_t>(hash >> 13) % 3;
    };
    const auto ends = [&](std::int32_t token) { return token == 2; };
    Tokens chosen = {next({})};
    std::set<Tokens> paths = {{}};
    for (std::int32_t node = 0; node < tree.size(); ++node) {
      const Tokens path = path_to(tree, node);
      paths.insert(path);
      chosen.push_back(next(path));
    }
    Tokens plain;
    do {
      plain.push_back(next(plain));
    } while (!ends(plain.back()) && paths.contains(plain));

    const Accepted accepted = accept(tree, chosen, {2});
    EXPECT_EQ(accepted.nodes, slow_accept(tree, chosen, ends).nodes);
    EXPECT_EQ(accepted.tokens, plain);
    ASSERT_EQ(accepted.nodes.size() + 1, plain.size());
    if (!accepted.nodes.empty()) {
      EXPECT_EQ(path_to(tree, accepted.nodes.back()), Tokens(plain.begin(), plain.end() - 1));
    }
    longest = std::max(longest, plain.size());
  }
  EXPECT_GT(longest, 4u);
}

}  // namespace
}  // namespace paceline::drafter
