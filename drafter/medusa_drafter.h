#pragma once

#include <cstdint>
#include <vector>

#include "drafter/candidates.h"
#include "drafter/config.h"
#include "drafter/drafter.h"
#include "drafter/medusa_head.h"
#include "drafter/medusa_tree.h"
#include "drafter/weights.h"
#include "kernels/api.h"

namespace paceline::drafter {

/// Medusa: every depth has a head of its own, which reads the hidden state that produced the last
/// known token, and nothing of the path before it. One pass of each head for all requests. The tree
/// is the one that the config chooses, cut to the shape's depth and number of nodes; or else the
/// most probable one of width * depth nodes. Requests may differ in their shapes.
class MedusaDrafter final : public Drafter {
 public:
  /// The backend must outlive it. Throws what `weights` throws.
  MedusaDrafter(const DrafterConfig& config, const WeightSource& weights,
                kernels::Backend& backend);

  void draft(const DraftBatch& batch, std::vector<TokenTree>& trees) override;
  std::int32_t most_nodes(const DraftShape& shape) const override;
  const DraftStats& stats() const override { return stats_; }

 private:
  /// A request that gets a draft.
  struct Asked {
    std::size_t index = 0;   // among the requests
    std::int64_t heads = 0;  // depths that it can use
  };

  // Those with a shape, the deepest first: the rows of a head are then the first ones.
  std::vector<Asked> asked(const DraftBatch& batch) const;
  void find_candidates(const DraftBatch& batch, const std::vector<Asked>& asked);
  // Of the asked request number `row`; empty if one of its rows is not finite.
  std::vector<std::vector<RankedToken>> ranked_depths(const DraftRequest& request,
                                                      std::int64_t heads, std::int64_t row) const;
  TokenTree tree(const DraftShape& shape,
                 const std::vector<std::vector<RankedToken>>& depths) const;

  kernels::Backend& backend_;
  MedusaHead head_;
  CandidateTable candidates_;
  std::vector<std::int64_t> first_row_;  // of each head's rows in candidates_
  kernels::Buffer hidden_rows_;
  DraftStats stats_;
};

}  // namespace paceline::drafter
