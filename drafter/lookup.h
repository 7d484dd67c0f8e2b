#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "drafter/drafter.h"

namespace paceline::drafter {

/// How the lookup drafter searches.
struct LookupOptions {
  std::int32_t min_match = 2;   ///< equal tokens, the last known one included, that make a match
  std::int32_t max_match = 16;  ///< longer matches count as this long
  std::int32_t paths = 0;       ///< continuations per request; 0: the shape's width
  std::int32_t depth = 0;       ///< tokens of each, at most kMaxDraftDepth; 0: the shape's depth
};

/// Prompt lookup: what followed the last tokens when they came before, in prompt or answer, may
/// follow again (Saxena 2023, "Prompt Lookup Decoding"; n-gram matching needs no training and no
/// device). Longer matches first, then later ones. A continuation that reaches the last known token
/// goes on as if the text repeated itself from there.
///
/// Example, min_match 2: tokens 1 2 3 4 9 1 2 | end with 1 2, which 3 4 9 1 2 ... followed.
///
/// After a match of m tokens the i-th token (from 0) is taken to come with probability
/// (m + i) / (m + i + 2): a rough rank among other drafts, never more.
class LookupDrafter final : public Drafter {
 public:
  explicit LookupDrafter(const LookupOptions& options = {});

  void draft(const DraftBatch& batch, std::vector<TokenTree>& trees) override;
  std::int32_t most_nodes(const DraftShape& shape) const override;
  const DraftStats& stats() const override { return stats_; }

 private:
  struct Match {
    std::int32_t next = 0;    // index of the token that followed
    std::int32_t length = 0;  // equal tokens before it
  };
  std::vector<Match> matches(std::span<const std::int32_t> tokens, std::size_t most) const;
  TokenTree tree(std::span<const std::int32_t> tokens, std::int32_t paths,
                 std::int32_t depth) const;

  LookupOptions options_;
  DraftStats stats_;
};

}  // namespace paceline::drafter
