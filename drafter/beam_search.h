#pragma once

#include <cstdint>
#include <vector>

#include "drafter/candidates.h"
#include "drafter/drafter.h"
#include "drafter/token_tree.h"
#include "kernels/params.h"

namespace paceline::drafter {

/// One request's beam search, one depth at a time.
///
/// A beam's score is the sum of its tokens' scores (see candidate_scores). Of all beams' candidates
/// the `width` of the largest score go on; ties go to the better beam, then to the lower token.
/// Tokens of probability 0 are left out. All in double, so the choice is the same on every machine.
class BeamSearch {
 public:
  BeamSearch(const DraftShape& shape, const kernels::SamplingRow& sampling, std::int32_t root);

  /// No depth is left to be searched: the shape's is reached, its least chance is not, or a row was
  /// not finite.
  bool done() const { return failed_ || unlikely_ || depth() == shape_.depth || shape_.width == 0; }
  bool failed() const { return failed_; }
  /// Depth of the current beams; 0 at first, when there is one, the root.
  std::int32_t depth() const { return static_cast<std::int32_t>(levels_.size()) - 1; }

  struct Beam {
    std::int32_t token = -1;
    std::int32_t parent = -1;  ///< among the beams of the depth before
    float log_prob = 0;
    double score = 0;
    bool operator==(const Beam&) const = default;
  };
  /// The current beams, best first. Each needs its next tokens' log-probabilities.
  const std::vector<Beam>& beams() const { return levels_.back(); }

  /// Goes one deeper with candidates for each of beams().
  void extend(const CandidateRows& candidates);

  /// The beams merged by their prefixes, in the order in which a walk over the beams, best first,
  /// meets the nodes, pruned to max_nodes; with any_candidate the max_nodes best of all candidates,
  /// depth by depth. Empty if the search failed.
  TokenTree tree() const;

 private:
  TokenTree tree_of_beams() const;
  TokenTree tree_of_candidates() const;

  DraftShape shape_;
  kernels::SamplingRow sampling_;
  bool failed_ = false;
  bool unlikely_ = false;
  std::vector<std::vector<Beam>> levels_;  // levels_[d]: the beams of depth d
  // With any_candidate, seen_[d]: the max_nodes best candidates of depth d + 1, the beams first.
  std::vector<std::vector<Beam>> seen_;
};

}  // namespace paceline::drafter
