#pragma once

#include <cstdint>
#include <span>

#include "drafter/token_tree.h"

namespace paceline::runtime {

/// Benchmarks only: what a drafter of that quality would be worth, without one. Rewrites the tokens
/// that the model chose so that as many drafted ones are accepted as give `tokens_per_step` on
/// average, the first node of that depth with those above it. The answers are not the model's.
///
/// Example: 3.5 tokens a step accepts 2, 3, 2, 3, ... nodes. What a tree is too shallow for is made
/// up for by later ones. It must be asked for the same trees on every rank, in the same order.
class SimulatedAcceptance {
 public:
  /// FatalError unless tokens_per_step is at least 1.
  explicit SimulatedAcceptance(double tokens_per_step);

  /// `chosen` [1 + nodes]: after the root and every node, as drafter::accept takes them. Left alone
  /// if the tree is empty or a token is -1.
  void operator()(const drafter::TokenTree& tree, std::span<std::int32_t> chosen);

 private:
  double nodes_per_step_;
  double owed_ = 0;
};

}  // namespace paceline::runtime
