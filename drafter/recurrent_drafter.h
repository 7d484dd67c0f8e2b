#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "drafter/beam_search.h"
#include "drafter/candidates.h"
#include "drafter/config.h"
#include "drafter/drafter.h"
#include "drafter/recurrent_head.h"
#include "drafter/weights.h"
#include "kernels/api.h"

namespace paceline::drafter {

/// ReDrafter: beam search with a recurrent head, batched over requests and beams. The first state
/// takes in the last known token; from the hidden state that produced it and that state come the
/// log-probabilities of depth 1. Requests may differ in width and depth.
class RecurrentDrafter final : public Drafter, public DeviceDrafter {
 public:
  /// The embedding and the backend must outlive it. Throws what `weights` throws.
  RecurrentDrafter(const DrafterConfig& config, const WeightSource& weights,
                   TokenEmbedding& embedding, kernels::Backend& backend);

  void draft(const DraftBatch& batch, std::vector<TokenTree>& trees) override;
  std::int32_t most_nodes(const DraftShape& shape) const override {
    return limited_nodes(shape, shape.width, shape.depth);
  }
  const DraftStats& stats() const override { return stats_; }

  DeviceDrafter* on_device() override { return embedding_.stays_on_device() ? this : nullptr; }
  DraftLayout plan(const DraftBatch& batch) override;
  kernels::BeamPlan* plans() const override { return searches_.plans(); }
  std::span<const std::int64_t> key() const override { return key_; }
  DeviceTrees search() override;
  kernels::Readback::Part found() const override { return searches_.found(); }
  void read(const DraftLayout& layout, const std::byte* found,
            std::vector<TokenTree>& trees) override;

 private:
  void advance_states(const BeamSearches::Rows& rows);
  void find_candidates(const BeamSearches::Rows& rows);

  TokenEmbedding& embedding_;
  kernels::Backend& backend_;
  RecurrentHead head_;
  DraftStats stats_;

  BeamSearches searches_;
  std::unique_ptr<kernels::Readback> trees_;
  const float* hidden_ = nullptr;  // DraftBatch::hidden
  std::vector<std::int64_t> key_;
  CandidateTable candidates_;
  kernels::Buffer embedded_;       // [M, hidden]
  kernels::Buffer states_;         // [M, hidden], of the last depth
  kernels::Buffer parent_states_;  // [M, hidden]
};

}  // namespace paceline::drafter
