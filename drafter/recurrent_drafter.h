#pragma once

#include <cstdint>
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
class RecurrentDrafter final : public Drafter {
 public:
  /// The embedding and the backend must outlive it. Throws what `weights` throws.
  RecurrentDrafter(const DrafterConfig& config, const WeightSource& weights,
                   TokenEmbedding& embedding, kernels::Backend& backend);

  void draft(const DraftBatch& batch, std::vector<TokenTree>& trees) override;
  std::int32_t most_nodes(const DraftShape& shape) const override {
    return limited_nodes(shape, shape.width, shape.depth);
  }
  const DraftStats& stats() const override { return stats_; }

 private:
  struct Search {
    BeamSearch beams;
    std::int32_t hidden_row = 0;
    std::int32_t first_row = 0;  // of its beams' rows
  };
  /// The rows of one depth: every beam of every search that goes on.
  struct Rows {
    std::vector<std::int32_t> tokens;
    std::vector<std::int32_t> parents;  // rows of the depth before
    std::vector<std::int32_t> hidden_rows;
    std::int64_t size() const { return static_cast<std::int64_t>(tokens.size()); }
  };

  void lay_out_rows();
  void advance_states(bool first);
  void find_candidates(const float* hidden);
  void extend_searches();

  TokenEmbedding& embedding_;
  kernels::Backend& backend_;
  RecurrentHead head_;
  DraftStats stats_;

  std::vector<Search> searches_;
  Rows rows_;
  CandidateTable candidates_;
  kernels::Buffer tokens_, parents_, hidden_rows_;  // of rows_, on the device
  kernels::Buffer embedded_;                        // [M, hidden]
  kernels::Buffer states_;                          // [M, hidden], of the last depth
  kernels::Buffer parent_states_;                   // [M, hidden]
};

}  // namespace paceline::drafter
