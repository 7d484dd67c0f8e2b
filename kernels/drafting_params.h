#pragma once

#include <cstdint>

#include "kernels/params.h"

// The structs of the ops that draft, lay trees of drafted tokens out in a step, and walk them; as
// in kernels/params.h.

namespace paceline::kernels {

/// Beam search, many at a time (kernels/core/beams.h has the rules).
inline constexpr std::int32_t kMaxBeams = 64;       // that a search goes on with
inline constexpr std::int32_t kMaxPathLength = 16;  // tokens of a path

/// A path that a search has found, by its last token.
struct Beam {
  std::int32_t token = -1;
  std::int32_t parent = -1;  // among the beams of the level before
  float log_prob = 0;        // of the token, given the path to it
  double score = 0;          // of the path: the sum of its candidates' scores
};

/// What a search is asked for. Level d of all searches holds paths of d + 1 tokens; in each a
/// search has `room` places from `first` on, for its best paths, the best first. The first `width`
/// of them are its beams, which go on.
struct BeamPlan {
  SamplingRow sampling = {};       // of level 0; that of level d has d more as its index
  double least_chance = 0;         // see BeamEnd::kUnlikely
  std::int32_t root = 0;           // the token before all paths
  std::int32_t hidden_row = 0;     // handed on to its rows
  std::int32_t width = 0;          // 1 ... kMaxBeams
  std::int32_t depth = 0;          // levels, 1 ... kMaxPathLength
  std::int32_t room = 0;           // at least `width`
  std::int32_t first = 0;          // first + room <= the stride of a level
  std::int32_t most_nodes = 0;     // of its tree; 0: all
  std::int32_t any_candidate = 0;  // 1: all places become nodes, not only the last beams' paths
};

enum class BeamEnd : std::int32_t {
  kNone,      // it goes on
  kDone,      // its depth is reached
  kUnlikely,  // at temperature 0: its beams' probabilities sum to less than least_chance
  kNotFinite  // a beam had no candidates: its row was not finite
};

/// How far a search has come.
struct BeamState {
  BeamEnd end = BeamEnd::kNone;
  std::int32_t levels = 0;                   // found so far
  std::int32_t first_row = 0;                // of the rows of its beams
  std::int32_t places[kMaxPathLength] = {};  // of each level, those that are filled
};

/// Lays out the rows from which the searches' next level will come: a row for each beam of each
/// search that goes on, one search after the other; with `start` searches begin, each with its root
/// alone. states are updated. Rows from num_rows on get zeros.
struct PlaceBeamsParams {
  const BeamPlan* plans = nullptr;  // [searches]
  BeamState* states = nullptr;      // [searches]
  const Beam* levels = nullptr;     // [., stride]
  std::int64_t stride = 0;
  bool start = false;
  std::int32_t* tokens = nullptr;       // [most_rows]
  std::int32_t* parent_rows = nullptr;  // [most_rows]: each beam's parent's, of the rows before
  std::int32_t* hidden_rows = nullptr;  // [most_rows]
  std::int32_t* num_rows = nullptr;     // [1], at most most_rows
  std::int64_t searches = 0;
  std::int64_t most_rows = 0;
};

/// Finds the next level of each search that goes on, from the candidates that follow each of its
/// rows, as top_log_probs gives them.
struct ExtendBeamsParams {
  const BeamPlan* plans = nullptr;  // [searches]
  BeamState* states = nullptr;      // [searches]
  Beam* levels = nullptr;           // [., stride]
  std::int64_t stride = 0;
  const std::int32_t* ids = nullptr;       // [rows, k]
  const float* log_probs = nullptr;        // [rows, k]
  const std::int32_t* counts = nullptr;    // [rows]
  const std::int32_t* token_of = nullptr;  // [ids], ascending: the tokens that ids stand for; null:
                                           // themselves
  std::int32_t k = 0;                      // at most kMaxTopLogProbs
  std::int64_t searches = 0;
};

/// A token of a tree of paths.
struct PathNode {
  std::int32_t token = -1;
  std::int32_t parent = -1;  // a node that stands before it; -1: the root
  std::int32_t depth = 0;    // 1 for the root's children
  float log_prob = 0;        // of the beam whose last token it is
  double score = 0;
};

struct PathTree {
  BeamEnd end = BeamEnd::kNone;    // why its search ended
  std::int32_t nodes = 0;          // 0 for kNotFinite
  std::int64_t unmerged_rows = 0;  // that the paths, each with the root, would be on their own
  std::int64_t saved_rows = 0;     // of those, before nodes were left out
};

/// The tree of each search: the paths of its last beams merged by their beginnings, nodes in the
/// order in which a walk over the beams, best first, meets them; with any_candidate all places,
/// level by level. Of more than most_nodes nodes those of the largest score stay, in their order,
/// ties to the earlier.
struct MergeBeamsParams {
  const BeamPlan* plans = nullptr;    // [searches]
  const BeamState* states = nullptr;  // [searches]
  const Beam* levels = nullptr;       // [., stride]
  std::int64_t stride = 0;
  PathTree* trees = nullptr;  // [searches]
  PathNode* nodes = nullptr;  // [searches, most_nodes]
  std::int64_t searches = 0;
  std::int64_t most_nodes = 0;
};

/// A tree that was verified: rows `first` (the root's) ... first + nodes, of those that a token was
/// chosen for.
struct AcceptPlan {
  std::int32_t first = 0;
  std::int32_t nodes = 0;
  std::int32_t sequence = 0;     // row of the page table
  std::int32_t first_slot = 0;   // node i waits in slot first_slot + i
  std::int32_t most_tokens = 1;  // that its sequence still takes
  std::int32_t stops = 1;        // 0: no stop token ends it
};

/// Arrays of a packed batch, where the device fills in what the host did not know: M rows, R of
/// them with logits.
struct BatchArrays {
  std::int32_t* tokens = nullptr;        // [M]
  std::int32_t* positions = nullptr;     // [M]
  RowPlace* rows_at = nullptr;           // [M]
  std::int32_t* ancestors = nullptr;     // slots, see RowPlace
  SamplingRow* sampling = nullptr;       // [R]
  std::int32_t* tree_tokens = nullptr;   // [R], AcceptPathsParams::tokens
  std::int32_t* tree_parents = nullptr;  // [R], AcceptPathsParams::parents
  AcceptPlan* accept = nullptr;          // [trees]
};

/// Where a step leaves a sequence.
struct SequenceHead {
  std::int32_t length = 0;       // tokens known; the last has no key and value yet
  std::int32_t token = -1;       // the last; -1: its logits were not finite
  std::int32_t most_tokens = 0;  // that the sequence still takes
  bool operator==(const SequenceHead&) const = default;
};

/// A sequence whose row was laid out before it was known where the step before leaves it.
struct ResumePlan {
  std::int32_t head = 0;     // among those of the step before
  std::int32_t row = 0;      // its one row of known tokens
  std::int32_t sampled = 0;  // the same among rows with logits
  std::int32_t accept = 0;   // its AcceptPlan
  std::int32_t search = -1;  // its BeamPlan; -1: nothing is searched for
};

/// Brings such sequences up to date: token, place and sampling of their rows, their AcceptPlans and
/// BeamPlans.
struct ResumeSequencesParams {
  const ResumePlan* plans = nullptr;    // [count]
  const SequenceHead* heads = nullptr;  // [.]
  BatchArrays batch;
  BeamPlan* beams = nullptr;  // [searches]
  std::int64_t count = 0;
};

/// Room for a tree behind its root in a batch: rows that follow the root's own, among all and among
/// those with logits.
struct TreePlace {
  std::int32_t tree = -1;           // of those that were found; -1: none
  std::int32_t accept = 0;          // its AcceptPlan
  std::int32_t row = 0;             // the root's
  std::int32_t sampled = 0;         // the same among rows with logits
  std::int32_t rows = 0;            // behind the root's
  std::int32_t sampled_rows = 0;    // behind the root's, of those with logits
  std::int32_t first_ancestor = 0;  // room for a list of `depth` slots for each node
  std::int32_t depth = 0;           // no node is deeper
};

/// Lays out trees in their places: node i waits in the slot i behind its sequence's known tokens,
/// whatever its depth, and its path's slots are its ancestors. Rows that no node takes repeat the
/// root: they compute what it does and write the same to the same slot.
///
/// Example: a sequence of 9 known tokens and the tree a(b, c), in room for four nodes:
///
///   row         3  4  5  6  7
///   token       .  a  b  c  .
///   position    8  9 10 10  8
///   slot        8  9 10 11  8
///   ancestors      9 9,10 9,11     (slots)
struct PlaceTreesParams {
  const TreePlace* places = nullptr;  // [count]
  const PathTree* trees = nullptr;
  const PathNode* nodes = nullptr;  // [trees, most_nodes]
  std::int64_t most_nodes = 0;
  BatchArrays batch;
  std::int64_t count = 0;
};

/// What was accepted of it.
struct AcceptedPath {
  std::int32_t sequence = 0;  // row of the page table
  std::int32_t first_slot = 0;
  std::int32_t token = -1;  // chosen after the last node (or the root): no node follows it
  std::int32_t count = 0;   // nodes, whose tokens come before it
  std::int32_t nodes[kMaxPathLength] = {};
  bool operator==(const AcceptedPath&) const = default;
};

/// Verification by equality: from the root on, as long as the chosen token is none that ends a
/// sequence (one of stop_tokens, -1, the last of most_tokens) and a child equals it, that child is
/// accepted. tokens and parents are those of the nodes' rows, parents counted in nodes, -1 for the
/// root; they stand before their children.
///
/// Example: nodes 0 ... 5 with the tokens a b c d e f, the paths a b c, a d e and a b f. Where a,
/// b, f and g are chosen after the root and the nodes 0, 1 and 5, these three nodes are accepted,
/// then the token g. Were f to end the sequence: 0 and 1, then f.
struct AcceptPathsParams {
  const AcceptPlan* plans = nullptr;          // [trees]
  const std::int32_t* chosen = nullptr;       // [rows]
  const std::int32_t* tokens = nullptr;       // [rows], not read of roots
  const std::int32_t* parents = nullptr;      // [rows], not read of roots
  const std::int32_t* stop_tokens = nullptr;  // [num_stop_tokens]
  std::int64_t num_stop_tokens = 0;
  AcceptedPath* paths = nullptr;      // [trees]
  std::int32_t* last_rows = nullptr;  // [trees]: the row that each path's token was chosen for
  SequenceHead* heads = nullptr;      // [trees], or null: nobody asks
  std::int64_t trees = 0;
};

/// Moves the keys and values of each path's nodes, in every layer and head, from the slots they
/// wait in to first_slot, first_slot + 1, ..., one after the other. Nodes ascend along a path, so
/// that none overwrites what a later one reads.
struct CompactKvParams {
  KvPool kv;
  PageTable page_table;
  const AcceptedPath* paths = nullptr;  // [count], each of another sequence
  std::int64_t count = 0;
};

}  // namespace paceline::kernels
