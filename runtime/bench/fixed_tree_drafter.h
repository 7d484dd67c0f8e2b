#pragma once

#include "drafter/drafter.h"

namespace paceline::runtime {

/// Drafts trees of as many nodes as it may, of tokens drawn without a thought and at no cost: for
/// measuring what a step of that many rows takes. A shape of w x d is w paths of d tokens.
class FixedTreeDrafter final : public drafter::Drafter {
 public:
  explicit FixedTreeDrafter(std::int64_t vocab_size) : vocab_size_(vocab_size) {}

  void draft(const drafter::DraftBatch& batch, std::vector<drafter::TokenTree>& trees) override;
  std::int32_t most_nodes(const drafter::DraftShape& shape) const override;
  const drafter::DraftStats& stats() const override { return stats_; }

  /// The shape whose tree has exactly `nodes` nodes: paths of four tokens, as many as it takes.
  static drafter::DraftShape shape_of(std::int32_t nodes);

 private:
  std::int64_t vocab_size_;
  drafter::DraftStats stats_;
};

}  // namespace paceline::runtime
