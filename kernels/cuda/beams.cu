#include "kernels/core/beams.h"

#include <cstdint>
#include <limits>
#include <string>

#include "kernels/core/exact_math.h"
#include "kernels/core/sampling.h"
#include "kernels/cuda/block.h"
#include "kernels/cuda/intrinsics.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ops.h"

namespace paceline::kernels::cuda {
namespace {

constexpr int kPlaceThreads = 256;
constexpr int kExtendThreads = 512;
constexpr int kMergeThreads = 512;
constexpr double kNever = -std::numeric_limits<double>::infinity();

struct Add {
  __device__ int operator()(int a, int b) const { return a + b; }
};

// One block; a thread lays out a search's rows.
__global__ void __launch_bounds__(kPlaceThreads) place_beams_kernel(const PlaceBeamsParams params) {
  join_stream();
  std::int64_t placed = 0;
  for (std::int64_t base = 0; base < params.searches; base += blockDim.x) {
    const std::int64_t search = base + threadIdx.x;
    const bool exists = search < params.searches;
    if (exists && params.start) params.states[search] = {};
    const std::int32_t beams = exists ? open_beams(params.plans[search], params.states[search]) : 0;
    const std::int64_t row =
        placed + static_cast<std::int64_t>(sum_before(static_cast<std::uint64_t>(beams)));
    placed += reduce_block(beams, Add{});
    if (placed > params.most_rows) __trap();
    if (exists) place_search(params, search, row, beams);
  }
  for (std::int64_t row = placed + threadIdx.x; row < params.most_rows; row += blockDim.x) {
    params.tokens[row] = params.parent_rows[row] = params.hidden_rows[row] = 0;
  }
  if (threadIdx.x == 0) *params.num_rows = static_cast<std::int32_t>(placed);
}

/// Scores of the new paths of one beam, computed by a warp; kNever for none.
__device__ void score_candidates(const ExtendBeamsParams& params, const SamplingRow& sampling,
                                 std::int64_t row, double base, double* scores) {
  const std::int32_t count = params.counts[row];
  double largest = kNever;
  for (int i = lane_of_warp(); i < count; i += kWarpThreads) {
    const std::int32_t id = params.ids[row * params.k + i];
    scores[i] = candidate_score(sampling, params.token_of != nullptr ? params.token_of[id] : id,
                                params.log_probs[row * params.k + i]);
    largest = std::max(largest, scores[i]);
  }
  largest = reduce_warp(largest, [](double a, double b) { return std::max(a, b); });
  if (!(sampling.temperature > 0)) largest = 0;
  for (int i = lane_of_warp(); i < params.k; i += kWarpThreads) {
    const double score = i < count ? scores[i] - largest : kNever;
    scores[i] = score > kNever ? base + score : kNever;
  }
}

/// Whether path `a` goes before `b`; of a beam's candidates the one with the lower id is that with
/// the lower token.
__device__ bool goes_before(const ExtendBeamsParams& params, const double* scores,
                            std::int64_t first, int a, int b) {
  if (scores[a] != scores[b]) return scores[a] > scores[b];
  if (a / params.k != b / params.k) return a < b;
  return params.ids[first + a] < params.ids[first + b];
}

/// The sum of the beams' probabilities, added in their order.
__device__ double chance_of(const Beam* beams, int count) {
  __shared__ double terms[kMaxBeams];
  __shared__ double chance;
  const int own = static_cast<int>(threadIdx.x);
  if (own < count) terms[own] = exact::exp(beams[own].score);
  __syncthreads();
  if (own == 0) {
    double sum = 0;
    for (int i = 0; i < count; ++i) sum += terms[i];
    chance = sum;
  }
  __syncthreads();
  return chance;
}

// A block for each search, a warp for each beam's candidates; a path's place is the number of those
// that go before it.
__global__ void __launch_bounds__(kExtendThreads)
    extend_beams_kernel(const ExtendBeamsParams params) {
  join_stream();
  __shared__ double scores[kMaxBeams * kMaxTopLogProbs];
  const BeamPlan& plan = params.plans[blockIdx.x];
  BeamState& state = params.states[blockIdx.x];
  const BeamState before = state;
  const int beams = open_beams(plan, before);
  if (beams == 0) return;  // the same for every thread
  int empty = 0;
  for (int b = static_cast<int>(threadIdx.x); b < beams; b += kExtendThreads) {
    if (params.counts[before.first_row + b] == 0) empty = 1;
  }
  if (reduce_block(empty, Add{}) > 0) {
    if (threadIdx.x == 0) state.end = BeamEnd::kNotFinite;
    return;
  }

  SamplingRow sampling = plan.sampling;
  sampling.index += static_cast<std::uint64_t>(before.levels);
  const Beam* level = last_level(params.levels, params.stride, plan, before);
  for (int b = warp_of_block(); b < beams; b += warps_of_block()) {
    score_candidates(params, sampling, before.first_row + b, level == nullptr ? 0 : level[b].score,
                     scores + b * params.k);
  }
  __syncthreads();

  Beam* next = params.levels + before.levels * params.stride + plan.first;
  const std::int64_t first = static_cast<std::int64_t>(before.first_row) * params.k;
  int found = 0;
  for (int own = static_cast<int>(threadIdx.x); own < beams * params.k; own += kExtendThreads) {
    if (!(scores[own] > kNever)) continue;
    ++found;
    int place = 0;
    for (int i = 0; i < beams * params.k && place < plan.room; ++i) {
      if (goes_before(params, scores, first, i, own)) ++place;
    }
    if (place >= plan.room) continue;
    const std::int32_t id = params.ids[first + own];
    next[place] = {params.token_of != nullptr ? params.token_of[id] : id, own / params.k,
                   params.log_probs[first + own], scores[own]};
  }
  found = std::min(reduce_block(found, Add{}), plan.room);

  BeamEnd end = before.levels + 1 == plan.depth || found == 0 ? BeamEnd::kDone : BeamEnd::kNone;
  if (plan.least_chance > 0 && !(sampling.temperature > 0) &&
      chance_of(next, std::min(found, plan.width)) < plan.least_chance) {
    end = BeamEnd::kUnlikely;
  }
  if (threadIdx.x == 0) {
    state.places[before.levels] = found;
    state.levels = before.levels + 1;
    state.end = end;
  }
}

/// A place of a search's levels.
struct Place {
  std::int32_t level = -1;  // -1: none
  std::int32_t index = 0;
};

/// The nodes of a search's tree before any is left out: a number for each, ascending in their
/// order, some numbers standing for none. All threads of the block make one together.
class Nodes {
 public:
  __device__ Nodes(const MergeBeamsParams& params, const BeamPlan& plan, const BeamState& state)
      : plan_(plan),
        state_(state),
        levels_(params.levels + plan.first),
        stride_(params.stride),
        paths_(std::min(plan.width, state.places[state.levels - 1])) {
    __shared__ std::int32_t beam_of[kMaxBeams * kMaxPathLength];
    __shared__ std::int32_t first_path[kMaxBeams * kMaxPathLength];
    beam_of_ = beam_of;
    first_path_ = first_path;
    if (plan_.any_candidate != 0) {
      for (std::int32_t d = 0; d < state_.levels; ++d) numbers_ += state_.places[d];
      return;
    }
    numbers_ = paths_ * state_.levels;
    for (int i = static_cast<int>(threadIdx.x); i < kMaxBeams * kMaxPathLength;
         i += kMergeThreads) {
      first_path[i] = kMaxBeams;
    }
    __syncthreads();
    for (int path = static_cast<int>(threadIdx.x); path < paths_; path += kMergeThreads) {
      std::int32_t beam = path;
      for (std::int32_t d = state_.levels - 1; d >= 0; --d) {
        beam_of[path * state_.levels + d] = beam;
        atomicMin(&first_path[d * kMaxBeams + beam], path);
        beam = at({d, beam}).parent;
      }
    }
    __syncthreads();
  }

  __device__ std::int32_t numbers() const { return numbers_; }
  __device__ std::int32_t paths() const { return paths_; }
  __device__ const Beam& at(Place place) const {
    return levels_[place.level * stride_ + place.index];
  }

  __device__ Place place(std::int32_t number) const {
    if (plan_.any_candidate != 0) {
      std::int32_t level = 0;
      while (number >= state_.places[level]) number -= state_.places[level++];
      return {level, number};
    }
    const std::int32_t level = number % state_.levels;
    const std::int32_t beam = beam_of_[number];
    const bool is_first = first_path_[level * kMaxBeams + beam] == number / state_.levels;
    return {is_first ? level : -1, beam};
  }

  /// Nodes that stay before node `own` where only the best do.
  __device__ std::int32_t rank_of(std::int32_t own, std::int32_t most) const {
    const double score = at(place(own)).score;
    std::int32_t rank = 0;
    for (std::int32_t number = 0; number < numbers_ && rank < most; ++number) {
      const Place other = place(number);
      if (other.level < 0) continue;
      const double others = at(other).score;
      if (others > score || (others == score && number < own)) ++rank;
    }
    return rank;
  }

 private:
  const BeamPlan& plan_;
  const BeamState& state_;
  const Beam* levels_;
  std::int64_t stride_;
  std::int32_t paths_;
  std::int32_t numbers_ = 0;
  const std::int32_t* beam_of_ = nullptr;     // [paths, levels]
  const std::int32_t* first_path_ = nullptr;  // [levels, kMaxBeams]: the first path through a beam
};

// A block for each search.
__global__ void __launch_bounds__(kMergeThreads) merge_beams_kernel(const MergeBeamsParams params) {
  join_stream();
  __shared__ std::int32_t node_of[kMaxPathLength * kMaxBeams];
  const std::int64_t search = blockIdx.x;
  const BeamPlan& plan = params.plans[search];
  const BeamState& state = params.states[search];
  PathTree tree{.end = state.end};
  if (state.end != BeamEnd::kNotFinite && state.levels > 0) {  // the same for every thread
    const Nodes nodes(params, plan, state);
    int found = 0;
    for (int n = static_cast<int>(threadIdx.x); n < nodes.numbers(); n += kMergeThreads) {
      if (nodes.place(n).level >= 0) ++found;
    }
    found = reduce_block(found, Add{});
    const bool all = plan.most_nodes == 0 || found <= plan.most_nodes;
    for (std::int32_t base = 0; base < nodes.numbers(); base += kMergeThreads) {
      const std::int32_t number = base + static_cast<std::int32_t>(threadIdx.x);
      const Place place = number < nodes.numbers() ? nodes.place(number) : Place{};
      const bool stays =
          place.level >= 0 && (all || nodes.rank_of(number, plan.most_nodes) < plan.most_nodes);
      const auto index = tree.nodes + static_cast<std::int32_t>(sum_before(stays ? 1 : 0));
      // Only beams have children.
      if (stays && place.index < kMaxBeams) node_of[place.level * kMaxBeams + place.index] = index;
      __syncthreads();
      if (stays) {
        if (index >= params.most_nodes) __trap();
        const Beam& beam = nodes.at(place);
        params.nodes[search * params.most_nodes + index] = {
            beam.token,
            place.level == 0 ? -1 : node_of[(place.level - 1) * kMaxBeams + beam.parent],
            place.level + 1, beam.log_prob, beam.score};
      }
      tree.nodes += reduce_block(stays ? 1 : 0, Add{});
    }
    if (plan.any_candidate != 0) {
      tree.unmerged_rows = tree.nodes + 1;
    } else {
      tree.unmerged_rows = static_cast<std::int64_t>(nodes.paths()) * (state.levels + 1);
      tree.saved_rows = tree.unmerged_rows - found - 1;
    }
  }
  if (threadIdx.x == 0) params.trees[search] = tree;
}

}  // namespace

void place_beams(const PlaceBeamsParams& params, cudaStream_t stream) {
  launch("place_beams", {1, kPlaceThreads}, stream, place_beams_kernel, params);
}

void extend_beams(const ExtendBeamsParams& params, cudaStream_t stream) {
  if (params.k <= 0 || params.k > kMaxTopLogProbs) {
    fail("extend_beams: k is " + std::to_string(params.k) + ", expected 1 to " +
         std::to_string(kMaxTopLogProbs));
  }
  launch("extend_beams", {params.searches, kExtendThreads}, stream, extend_beams_kernel, params);
}

void merge_beams(const MergeBeamsParams& params, cudaStream_t stream) {
  launch("merge_beams", {params.searches, kMergeThreads}, stream, merge_beams_kernel, params);
}

}  // namespace paceline::kernels::cuda
