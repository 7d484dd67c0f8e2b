#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "drafter/acceptance.h"
#include "drafter/token_tree.h"

namespace paceline::drafter {

/// What is accepted of a tree, the slow way: `chosen` [1 + nodes] after the root and every node;
/// `ends` is asked once for each token in turn.
inline Accepted slow_accept(const TokenTree& tree, std::span<const std::int32_t> chosen,
                            const std::function<bool(std::int32_t)>& ends) {
  Accepted accepted;
  std::int32_t at = TreeNode::kRoot;
  for (;;) {
    const std::int32_t token = chosen[static_cast<std::size_t>(at + 1)];
    accepted.tokens.push_back(token);
    if (ends(token)) break;
    at = tree.child(at, token);
    if (at == TreeNode::kRoot) break;
    accepted.nodes.push_back(at);
  }
  return accepted;
}

}  // namespace paceline::drafter
