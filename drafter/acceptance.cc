#include "drafter/acceptance.h"

#include "kernels/core/error.h"

namespace paceline::drafter {

Accepted accept(const TokenTree& tree, std::span<const std::int32_t> chosen,
                kernels::FunctionRef<bool(std::int32_t)> ends) {
  check(std::ssize(chosen) == tree.size() + 1, "{} chosen tokens for a tree of {} nodes",
        chosen.size(), tree.size());
  Accepted accepted;
  std::int32_t at = TreeNode::kRoot;
  for (;;) {
    const std::int32_t token = chosen[at + 1];
    accepted.tokens.push_back(token);
    accepted.ended = ends(token);
    if (accepted.ended) break;
    at = tree.child(at, token);
    if (at == TreeNode::kRoot) break;
    accepted.nodes.push_back(at);
  }
  return accepted;
}

}  // namespace paceline::drafter
