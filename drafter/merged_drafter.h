#pragma once

#include <cstdint>
#include <vector>

#include "drafter/calibration.h"
#include "drafter/drafter.h"

namespace paceline::drafter {

/// Drafters whose trees are merged into one for each request. Which nodes a limited tree keeps goes
/// by what was learnt of each source's guesses (AcceptanceCalibration), so a request's tree also
/// depends on what was verified before it. One source alone is rated likewise. The second source is
/// asked first; it should cost nothing: what it is sure of, the first is not asked (least_chance).
class MergedDrafter final : public Drafter {
 public:
  /// At most two sources, which must outlive it.
  explicit MergedDrafter(std::vector<Drafter*> sources);

  void draft(const DraftBatch& batch, std::vector<TokenTree>& trees) override;
  void learn(const TokenTree& tree, const Accepted& accepted,
             const kernels::SamplingRow& sampling) override;
  std::int32_t most_nodes(const DraftShape& shape) const override;
  const DraftStats& stats() const override { return stats_; }

 private:
  void spare_searches(const std::vector<TokenTree>& known,
                      std::vector<DraftRequest>& requests) const;

  std::vector<Drafter*> sources_;
  AcceptanceCalibration calibration_;
  DraftStats stats_;
};

}  // namespace paceline::drafter
