#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "drafter/token_tree.h"
#include "kernels/core/function_ref.h"

namespace paceline::drafter {

/// What a step adds to a request: the tokens that plain decoding would have chosen one by one.
struct Accepted {
  std::vector<std::int32_t> tokens;  ///< at least one; the last was not in the tree, or ends
  std::vector<std::int32_t> nodes;   ///< the nodes of all tokens but the last, by depth
  bool ended = false;                ///< `ends` said so of the last token

  /// The packed row (0: the root, 1 + i: node i) that the last token was chosen from; its hidden
  /// state feeds the next draft.
  std::int32_t last_row() const { return nodes.empty() ? 0 : nodes.back() + 1; }
};

/// Verifies a tree by equality (the contract's fourth rule): `chosen` [1 + nodes] holds the token
/// that the base model's logits, the seed and the position choose after the root (chosen[0]) and
/// after every node i (chosen[1 + i]). From the root on each chosen token is appended and, if a
/// child equals it, followed. `ends` is asked once for each token in turn (end of sequence, length,
/// a token of -1); after the first for which it is true nothing is appended any more.
///
/// Example: the tree of token_tree.h with chosen {a, b, f, x, x, x, g}: tokens a, b, f, g by the
/// nodes 0, 1, 5. Were f to end: a, b, f by 0, 1.
Accepted accept(const TokenTree& tree, std::span<const std::int32_t> chosen,
                kernels::FunctionRef<bool(std::int32_t)> ends);

}  // namespace paceline::drafter
