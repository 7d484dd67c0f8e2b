#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "drafter/candidates.h"
#include "drafter/config.h"
#include "drafter/drafter.h"
#include "drafter/token_tree.h"
#include "kernels/api.h"
#include "kernels/drafting_params.h"

namespace paceline::drafter {

/// The beam searches of a draft, one level at a time for all requests together, where the backend
/// computes (kernels/core/beams.h has the rules). From `start` to `merge` nothing but ops of the
/// backend is called, so that it may repeat them; on a device the host does not wait in between.
///
/// searches.plan(requests);
/// searches.start();
/// while (searches.rows().count > 0) searches.extend(candidates of searches.rows());
/// searches.merge();
/// searches.read(layout, what stands at found(), trees);
class BeamSearches {
 public:
  /// The backend must outlive it.
  BeamSearches(const DrafterConfig& config, kernels::Backend& backend);

  /// Takes the requests whose shapes ask for a search. FatalError for what `Drafter::draft`
  /// refuses.
  DraftLayout plan(std::span<const DraftRequest> requests);
  bool empty() const { return plans_.empty(); }
  kernels::BeamPlan* plans() const { return device_plans_.as<kernels::BeamPlan>(); }
  /// All that the parameters of the ops depend on; the same until the next plan.
  std::span<const std::int64_t> key() const { return key_; }

  void start();
  /// The rows that the next level comes from, a beam each, in device memory.
  struct Rows {
    const std::int32_t* tokens = nullptr;       ///< [count]
    const std::int32_t* parents = nullptr;      ///< [count], rows of the level before
    const std::int32_t* hidden_rows = nullptr;  ///< [count]
    /// 0 when all has been searched. Where the host can see which searches have ended, their rows
    /// are not counted; on a device there are as many as there can be, the last ones perhaps idle.
    std::int64_t count = 0;
    bool first = false;  ///< the roots'
  };
  Rows rows() const;
  /// Goes one level deeper with candidates for each of rows().
  void extend(const DeviceCandidates& candidates);
  DeviceTrees merge();

  struct Found {
    std::int64_t rows = 0;        ///< all beams that were gone on with
    std::int64_t non_finite = 0;  ///< searches that a row which was not finite ended
  };
  /// Where the trees stand on the device.
  kernels::Readback::Part found() const;
  /// From those bytes: trees[i] is the tree of request i; empty where no search was asked for, or
  /// where a row was not finite.
  static Found read(const DraftLayout& layout, const std::byte* found,
                    std::vector<TokenTree>& trees);

 private:
  void place(bool start);
  kernels::PathTree* device_trees() const { return found_.as<kernels::PathTree>(); }
  std::int32_t* device_row_counts() const;
  kernels::PathNode* device_nodes() const;

  kernels::Backend& backend_;
  std::int64_t outputs_;                  // of the head
  std::vector<kernels::BeamPlan> plans_;  // of the requests that are searched for
  std::vector<std::int64_t> most_rows_;   // of each level
  std::vector<std::int64_t> key_;
  std::int64_t stride_ = 0;      // of a level
  std::int64_t most_nodes_ = 0;  // of a tree
  std::int32_t level_ = 0;       // to be found next

  kernels::Buffer token_of_;  // of the outputs; none: themselves
  kernels::Buffer device_plans_, states_, levels_;
  kernels::Buffer tokens_, parents_, hidden_rows_;  // of rows()
  kernels::Buffer found_;  // trees [searches], rows of each level [kMaxPathLength], their nodes
};

}  // namespace paceline::drafter
