#pragma once

#include <cuda_runtime.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/core/attention_order.h"
#include "kernels/core/exact_math.h"
#include "kernels/core/kv_address.h"
#include "kernels/cuda/attention_runs.h"
#include "kernels/cuda/attention_segments.h"
#include "kernels/cuda/block.h"
#include "kernels/cuda/intrinsics.h"

namespace paceline::kernels::cuda {

/// Queries times keys, and the weights that come of that.
template <KvFormat kFormat, int kDim, int kTiles>
class TensorScores {
  using Runs = TensorRuns<kFormat, kDim, kTiles>;
  static constexpr bool kInt8 = Runs::kInt8;
  static constexpr int kMostSteps = Runs::kMostDim / kTensorInputs;  // of a dot

 public:
  __device__ explicit TensorScores(const Runs& runs) : runs_(runs) {}

  /// The block's queries rounded to bf16, in the products' layout. Needs a barrier after it.
  __device__ void load_queries() {
    const int steps = runs_.dim() / kTensorInputs;
    auto* const words = reinterpret_cast<std::uint32_t*>(runs_.shared.queries);
    for (int i = static_cast<int>(threadIdx.x); i < kTiles * steps * kWarpThreads * 4;
         i += kTensorThreads) {
      const int word = i % 4;
      const int lane = i / 4 % kWarpThreads;
      const int step = i / (4 * kWarpThreads) % steps;
      const int q = i / (4 * kWarpThreads * steps) * kTileQueries + lane / 4 + word % 2 * 8;
      const int d = attention_dim(runs_.dim(), step * kTensorInputs + lane % 4 * 2 + word / 2 * 8);
      words[i] = 0;
      if (q >= runs_.shared.count) continue;
      const float* from = runs_.params.qkv + runs_.shared.row[q] * runs_.params.qkv_stride +
                          std::int64_t{runs_.shared.head[q]} * runs_.dim();
      words[i] = round_bf16x2(from[d], from[d + 1]);
    }
  }

  /// A run's scores, and the largest of each of its queries, by one warp. The run's block starts
  /// place.block blocks behind position `begin`.
  __device__ void score(std::int32_t begin, const KeyRunPlace& place) {
    // Tiles of 8 keys at a time, as many as registers hold without spilling.
    constexpr int kKeyTiles = Runs::kMostDim <= 128 ? 2 : 1;
    const KeyRun run = runs_.shared.runs[place.block][place.run];
    const std::int32_t from = begin + place.block * kTensorKeys;
    const typename Runs::KeyPlace own = runs_.find_key(run, from);
    float own_scale = 1;
    if (kInt8 && lane_of_warp() < run.keys) own_scale = kv_scale(runs_.params.kv, own.at, own.slot);
    float most[kTiles][2];
    PACELINE_UNROLL
    for (int tile = 0; tile < kTiles; ++tile) {
      most[tile][0] = most[tile][1] = -std::numeric_limits<float>::infinity();
    }
    for (int first = 0; first < kTensorKeys; first += 8 * kKeyTiles) {
      if (first >= run.keys) break;
      KeyWords keys[kKeyTiles] = {};
      PACELINE_UNROLL
      for (int n = 0; n < kKeyTiles; ++n) {
        const int key = first + 8 * n + fragment_row();
        const std::int64_t at = runs_.key_at(run, own.at, key);
        if (key < run.keys) load_key(at, keys[n]);
      }
      __syncwarp();  // the product takes a whole warp, which keys beyond the last have split
      float sums[kTiles][kKeyTiles][4] = {};
      PACELINE_UNROLL
      for (int step = 0; step < kMostSteps; ++step) {
        if (step * kTensorInputs >= runs_.dim()) break;
        PACELINE_UNROLL
        for (int tile = 0; tile < kTiles; ++tile) {
          const int words = tile * (runs_.dim() / kTensorInputs) + step;
          const Words4 rows = runs_.shared.queries[words * kWarpThreads + lane_of_warp()];
          PACELINE_UNROLL
          for (int n = 0; n < kKeyTiles; ++n) {
            multiply_bf16(sums[tile][n], rows, keys[n].step[step]);
          }
        }
      }
      PACELINE_UNROLL
      for (int n = 0; n < kKeyTiles; ++n) {
        keep_scores(run, place.block, from, first / 8 + n, own_scale, sums, n, most);
      }
    }
    keep_largest(run, place.block, most);
  }

  /// Turns a run's scores to weights. Leaves their sums, and what is done to the blocks before. All
  /// scores of the segment are there.
  __device__ void weigh(std::int32_t begin, const KeyRunPlace& place) {
    const KeyRun run = runs_.shared.runs[place.block][place.run];
    const std::int32_t from = begin + place.block * kTensorKeys;
    float scale[kTensorKeys / 8][2] = {};  // of the lane's keys' values
    if constexpr (kInt8) {
      const typename Runs::KeyPlace own = runs_.find_key(run, from);
      float own_scale = 1;
      if (lane_of_warp() < run.keys) {
        own_scale =
            kv_scale(runs_.params.kv, own.at + kv_value_distance(runs_.params.kv), own.slot);
      }
      PACELINE_UNROLL
      for (int i = 0; i < kTensorKeys / 4; ++i) {
        scale[i / 2][i % 2] =
            __shfl_sync(kWholeWarp, own_scale, i / 2 * 8 + 2 * fragment_pair() + i % 2);
      }
    }
    PACELINE_UNROLL
    for (int tile = 0; tile < kTiles; ++tile) {
      PACELINE_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int q = query_of(tile, half);
        const bool is_in = is_among(run.queries, q);
        float before = 0, max = 0, sum = 0;
        if (is_in) {
          before = largest_before(place.block, q);
          const float own = runs_.shared.max[place.block][q];
          max = own > before ? own : before;
          sum = keep_weights(place.block, tile, half, runs_.seen(q, from), max, scale);
        }
        sum += __shfl_xor_sync(kWholeWarp, sum, 1);
        sum += __shfl_xor_sync(kWholeWarp, sum, 2);
        if (!is_in || fragment_pair() != 0) continue;
        runs_.shared.rescale[place.block][q] = exact::exp(before - max);
        runs_.shared.sum[place.block][q] = sum;
      }
    }
  }

  /// Merges the queries' states of a segment into those of the segments before it.
  __device__ void merge_states(std::int32_t begin, bool is_first) {
    const auto q = static_cast<int>(threadIdx.x);
    if (!runs_.sees(q, begin)) return;
    SegmentState state{-std::numeric_limits<float>::infinity(), 0};
    for (int block = 0; block < kTensorBlocks; ++block) {
      if (runs_.seen(q, begin + block * kTensorKeys) == 0) break;
      const float own = runs_.shared.max[block][q];
      state.max = own > state.max ? own : state.max;
      state.sum = std::fma(state.sum, runs_.shared.rescale[block][q], runs_.shared.sum[block][q]);
    }
    if (is_first) {
      runs_.shared.state[q] = state;
    } else {
      runs_.shared.merging[q] = merge(runs_.shared.state[q], state);
    }
  }

 private:
  /// A lane's operands of 8 keys and all dimensions.
  struct KeyWords {
    Words2 step[kMostSteps];
  };
  __device__ void load_key(std::int64_t at, KeyWords& key) const {
    PACELINE_UNROLL
    for (int step = 0; step < kMostSteps; step += 2) {
      const int first = step * kTensorInputs;
      if (first >= runs_.dim()) break;
      if (first + 2 * kTensorInputs <= runs_.dim()) {
        if constexpr (kInt8) {
          const auto bytes = runs_.template load<Words2>(at + first + 8 * fragment_pair());
          key.step[step] = widen(bytes.word[0]);
          key.step[step + 1] = widen(bytes.word[1]);
        } else {
          const auto halves = runs_.template load<Words4>(at + first + 8 * fragment_pair());
          key.step[step] = {halves.word[0], halves.word[1]};
          key.step[step + 1] = {halves.word[2], halves.word[3]};
        }
      } else if constexpr (kInt8) {
        key.step[step] =
            widen(runs_.template load<std::uint32_t>(at + first + 4 * fragment_pair()));
      } else {
        key.step[step] = runs_.template load<Words2>(at + first + 4 * fragment_pair());
      }
    }
  }
  __device__ static Words2 widen(std::uint32_t bytes) {
    return {widen_int8x2(pick_bytes(bytes, 0, 0x0100)), widen_int8x2(pick_bytes(bytes, 0, 0x0302))};
  }

  /// The scores of 8 keys: the products, scaled.
  template <int kKeyTiles>
  __device__ void keep_scores(const KeyRun& run, int block, std::int32_t from, int eight,
                              float own_scale, const float (&sums)[kTiles][kKeyTiles][4], int n,
                              float (&most)[kTiles][2]) {
    const int key = 8 * eight + 2 * fragment_pair();
    float scale[2] = {1, 1};
    if constexpr (kInt8) {
      scale[0] = __shfl_sync(kWholeWarp, own_scale, key);
      scale[1] = __shfl_sync(kWholeWarp, own_scale, key + 1);
    }
    PACELINE_UNROLL
    for (int tile = 0; tile < kTiles; ++tile) {
      PACELINE_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int q = query_of(tile, half);
        if (!is_among(run.queries, q)) continue;
        const int visible = runs_.seen(q, from);
        Words2 scores;
        PACELINE_UNROLL
        for (int i = 0; i < 2; ++i) {
          const float score = sums[tile][n][2 * half + i] * scale[i] * runs_.params.scale;
          if (key + i < visible && score > most[tile][half]) most[tile][half] = score;
          scores.word[i] = std::bit_cast<std::uint32_t>(score);
        }
        runs_.shared.scores[block][tile][eight][half][lane_of_warp()] = scores;
      }
    }
  }

  __device__ void keep_largest(const KeyRun& run, int block, const float (&most)[kTiles][2]) {
    PACELINE_UNROLL
    for (int tile = 0; tile < kTiles; ++tile) {
      PACELINE_UNROLL
      for (int half = 0; half < 2; ++half) {
        float max = most[tile][half];
        PACELINE_UNROLL
        for (int other = 1; other <= 2; other *= 2) {
          const float others = __shfl_xor_sync(kWholeWarp, max, other);
          max = others > max ? others : max;
        }
        const int q = query_of(tile, half);
        if (fragment_pair() == 0 && is_among(run.queries, q)) runs_.shared.max[block][q] = max;
      }
    }
  }

  /// Of a query's scores in the segment's blocks before this one.
  __device__ float largest_before(int block, int q) const {
    float max = -std::numeric_limits<float>::infinity();
    for (int b = 0; b < block; ++b) {
      max = runs_.shared.max[b][q] > max ? runs_.shared.max[b][q] : max;
    }
    return max;
  }

  /// A lane's scores of a query become weights: 16 keys' where their first 8's scores stood.
  /// Returns their sum, before the values' scales.
  __device__ float keep_weights(int block, int tile, int half, int visible, float max,
                                const float (&scale)[kTensorKeys / 8][2]) {
    constexpr float kNone = -std::numeric_limits<float>::infinity();
    const int lane = lane_of_warp();
    float sum = 0;
    PACELINE_UNROLL
    for (int eight = 0; eight < kTensorKeys / 8; eight += 2) {
      Words2 weights;
      PACELINE_UNROLL
      for (int next = 0; next < 2; ++next) {
        const Words2 scores = runs_.shared.scores[block][tile][eight + next][half][lane];
        float weight[2];
        PACELINE_UNROLL
        for (int i = 0; i < 2; ++i) {
          const bool is_seen = 8 * (eight + next) + 2 * fragment_pair() + i < visible;
          const float distance = std::bit_cast<float>(scores.word[i]) - max;
          weight[i] = exact::exp(is_seen ? distance : kNone);  // of none +0, without a branch
          sum += weight[i];
          if constexpr (kInt8) weight[i] = is_seen ? weight[i] * scale[eight + next][i] : 0.0f;
        }
        weights.word[next] = round_bf16x2(weight[0], weight[1]);
      }
      runs_.shared.scores[block][tile][eight][half][lane] = weights;
    }
    return sum;
  }

  const Runs& runs_;
};

}  // namespace paceline::kernels::cuda
