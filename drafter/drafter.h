#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "drafter/acceptance.h"
#include "drafter/token_tree.h"
#include "kernels/api.h"

namespace paceline::drafter {

inline constexpr int kMaxDraftWidth = kernels::kMaxBeams;
inline constexpr int kMaxDraftDepth = kernels::kMaxPathLength;

/// How much is drafted for one request in one step.
struct DraftShape {
  std::int32_t width = 0;  ///< beams, at most kMaxDraftWidth; 0: none, only what needs no search
  std::int32_t depth = 0;  ///< tokens of a beam, at most kMaxDraftDepth; 0: no draft
  std::int32_t max_nodes = 0;  ///< only the most probable nodes are kept; 0: all
  /// With max_nodes: any token that the search looked at can become a node, not only those of the
  /// beams that it ends with. So a tree of a given size holds the most probable paths there are.
  bool any_candidate = false;
  /// A search stops where this is more than the chance that its next tokens matter: that its beams,
  /// all together, are right so far, or, at the first depth, that a drafter that costs nothing is
  /// wrong. At temperature above 0 beams' chances are not known, and only the latter counts.
  double least_chance = 0;
  bool operator==(const DraftShape&) const = default;
};

/// One request that needs a draft.
struct DraftRequest {
  std::span<const std::int32_t> tokens;  ///< all that are known; the last is the tree's root
  std::int32_t hidden_row = 0;  ///< of DraftBatch.hidden: the row that produced the last token
  /// How the token after the last will be chosen; that at depth d has index sampling.index + d - 1.
  /// With temperature 0 the draft goes by log-probability alone.
  kernels::SamplingRow sampling = {};
  DraftShape shape = {};
  std::int32_t max_depth = kMaxDraftDepth;  ///< no path is longer: what the request can still take
};

struct DraftBatch {
  const float* hidden = nullptr;  ///< [., hidden] device memory: after the base's final norm
  std::span<const DraftRequest> requests;
};

/// Sums over all drafts made.
struct DraftStats {
  std::int64_t drafts = 0;         ///< requests that a draft was made for
  std::int64_t rows = 0;           ///< rows that went through a draft head
  std::int64_t nodes = 0;          ///< of the trees given back
  std::int64_t unmerged_rows = 0;  ///< see TokenTree
  std::int64_t saved_rows = 0;
  std::int64_t non_finite = 0;  ///< drafts with a number that was not finite: empty trees
  void count(const TokenTree& tree);
};

/// What the host keeps of a draft whose trees it has not seen.
struct DraftLayout {
  std::size_t requests = 0;
  std::vector<std::size_t> index = {};  ///< of them those that have a tree, in the trees' order
  std::int64_t most_nodes = 0;          ///< room that each tree has
  std::int64_t levels = 0;              ///< of the deepest
  std::size_t bytes = 0;                ///< of DeviceDrafter::found()
};

/// Trees in device memory.
struct DeviceTrees {
  const kernels::PathTree* trees = nullptr;
  const kernels::PathNode* nodes = nullptr;  ///< [trees, most_nodes]
  std::int64_t most_nodes = 0;
};

/// A drafter whose draft is nothing but ops of a backend, so that it can be part of a longer run of
/// them: the host sees the trees when that is done, if at all.
class DeviceDrafter {
 public:
  virtual ~DeviceDrafter() = default;
  /// Prepares the draft of a batch, whose requests' last tokens and sampling indices the device may
  /// know better by the time it is made: see plans(). FatalError as `Drafter::draft`.
  virtual DraftLayout plan(const DraftBatch& batch) = 0;
  /// Of the trees' searches, in device memory, until the next plan.
  virtual kernels::BeamPlan* plans() const = 0;
  /// All that the parameters of search()'s ops depend on.
  virtual std::span<const std::int64_t> key() const = 0;
  /// Makes the draft.
  virtual DeviceTrees search() = 0;
  /// What read() is to be given of the device's memory.
  virtual kernels::Readback::Part found() const = 0;
  /// As `Drafter::draft` does.
  virtual void read(const DraftLayout& layout, const std::byte* found,
                    std::vector<TokenTree>& trees) = 0;
};

/// Guesses what follows. What it guesses decides how fast tokens come, never which. Deterministic:
/// ranks that make the same calls with equal bits get equal trees. Unless it learns, a request's
/// tree depends on that request alone.
class Drafter {
 public:
  virtual ~Drafter() = default;
  /// trees[i] is the tree of requests[i]. FatalError if a shape is out of bounds, or if a request
  /// has no tokens.
  virtual void draft(const DraftBatch& batch, std::vector<TokenTree>& trees) = 0;
  /// Is told what verification accepted of a tree that `draft` gave, after any other. Ranks that
  /// tell it the same in the same order keep drafting equally.
  virtual void learn(const TokenTree& /*tree*/, const Accepted& /*accepted*/,
                     const kernels::SamplingRow& /*sampling*/) {}
  /// The largest tree that a shape can come to: what a plan must reserve.
  virtual std::int32_t most_nodes(const DraftShape& shape) const = 0;
  virtual const DraftStats& stats() const = 0;
  /// Itself, if it drafts where the backend computes, without the host; else null.
  virtual DeviceDrafter* on_device() { return nullptr; }
};

/// FatalError unless the shape is within bounds.
void check_shape(const DraftShape& shape);

/// The request's shape, its depth within max_depth; throws FatalError as `draft` does.
DraftShape checked_shape(const DraftRequest& request);

/// `width` paths of `depth` nodes, or the shape's limit.
std::int32_t limited_nodes(const DraftShape& shape, std::int32_t width, std::int32_t depth);

}  // namespace paceline::drafter
