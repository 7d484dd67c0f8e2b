#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/core/attention_order.h"
#include "kernels/core/kv_address.h"
#include "kernels/cuda/attention_runs.h"
#include "kernels/cuda/attention_segments.h"
#include "kernels/cuda/block.h"
#include "kernels/cuda/intrinsics.h"

namespace paceline::kernels::cuda {

/// Weights times values: a warp has slices of the output's dimensions.
template <KvFormat kFormat, int kDim, int kTiles>
class TensorValues {
  using Runs = TensorRuns<kFormat, kDim, kTiles>;
  static constexpr bool kInt8 = Runs::kInt8;
  // Of the output: a word of a value holds so many dimensions, each a tile's column.
  static constexpr int kSliceTiles = kInt8 ? 4 : 2;
  static constexpr int kSliceDims = 8 * kSliceTiles;
  static constexpr int kSlices =
      std::max(1, Runs::kMostDim / kSliceDims / kTensorBlocks);  // of a warp
  // Runs whose values are on their way; more would not fit into registers.
  static constexpr int kAhead = kTiles == 1 && kSlices == 1 ? 3 : 2;

 public:
  /// A lane's sums of all its tiles.
  struct Outputs {
    float sum[kSlices][kTiles][kSliceTiles][4];
  };

  __device__ explicit TensorValues(const Runs& runs) : runs_(runs) {}

  /// Leaves the segment's outputs, not divided by their sums. The values of some runs are on their
  /// way while those of one are multiplied.
  __device__ void add_values(std::int32_t begin, Outputs& out) {
    __syncwarp();  // the products take a whole warp
    out = {};
    if (first_dim(0) >= runs_.dim()) return;
    ValueWords values[kAhead];
    KeyRunPlace loaded, used;
    bool loads = runs_.advance(loaded, 0);
    bool uses = runs_.advance(used, 0);
    PACELINE_UNROLL
    for (int i = 0; i < kAhead; ++i) {
      if (!loads) break;
      load_values(begin, loaded, values[i]);
      loads = runs_.advance(loaded, 1);
    }
    while (uses) {
      PACELINE_UNROLL
      for (int i = 0; i < kAhead; ++i) {
        if (!uses) break;
        add_run(begin, used, values[i], out);
        uses = runs_.advance(used, 1);
        if (!loads) continue;
        load_values(begin, loaded, values[i]);
        loads = runs_.advance(loaded, 1);
      }
    }
  }

  /// Merges a segment's outputs into those of the segments before it, as TensorMemory::merging
  /// says.
  __device__ void merge_outputs(std::int32_t begin, const Outputs& out, Outputs& all) const {
    for_sums([&](int slice, int tile, int column, int i) {
      const int q = query_of(tile, i / 2);
      float& sum = all.sum[slice][tile][column][i];
      if (runs_.sees(q, begin)) {
        sum = merge(runs_.shared.merging[q], sum, out.sum[slice][tile][column][i]);
      }
    });
  }

  /// Leaves the queries' state of the segment at `begin`, or without states their result.
  __device__ void store(std::int32_t begin, const Outputs& all, const AttentionSplit& split,
                        int segment) const {
    const AttentionParams& params = runs_.params;
    const int dim = runs_.dim();
    for_sums([&](int slice, int tile, int column, int i) {
      const int q = query_of(tile, i / 2);
      const int d = first_dim(slice) + (2 * fragment_pair() + i % 2) * kSliceTiles + column;
      if (!runs_.sees(q, begin) || d >= dim) return;
      const std::int64_t row = runs_.shared.row[q];
      const int head = runs_.shared.head[q];
      const SegmentState state = runs_.shared.state[q];
      const float sum = all.sum[slice][tile][column][i];
      if (split.states == nullptr) {
        params.out[(row * params.num_heads + head) * dim + d] =
            sum / state.sum + least_zero(params.math);
        return;
      }
      float* const to = split.states + state_place(params, row, head, segment, split.segments);
      to[d] = sum;
      if (d == 0) to[dim] = state.max;
      if (d == 0) to[dim + 1] = state.sum;
    });
  }

 private:
  /// use(slice, tile, column, i) for each of a lane's sums: of query_of(tile, i / 2), and in a
  /// slice's dimensions column, column + kSliceTiles, ... those of the lane's two columns.
  template <typename Use>
  __device__ static void for_sums(const Use& use) {
    PACELINE_UNROLL
    for (int slice = 0; slice < kSlices; ++slice) {
      PACELINE_UNROLL
      for (int tile = 0; tile < kTiles; ++tile) {
        PACELINE_UNROLL
        for (int column = 0; column < kSliceTiles; ++column) {
          PACELINE_UNROLL
          for (int i = 0; i < 4; ++i) use(slice, tile, column, i);
        }
      }
    }
  }

  /// Of a block's values and the lane's dimensions: of each 16 keys the inputs 2t, 2t + 1, 2t + 8
  /// and 2t + 9, with t = fragment_pair().
  struct ValueWords {
    std::uint32_t word[kSlices][2][4];
  };

  __device__ static int first_dim(int slice) {
    return (warp_of_block() + slice * kTensorBlocks) * kSliceDims;
  }
  /// The i-th of a lane's keys in 16.
  __device__ static int key_of_word(int i) { return 2 * fragment_pair() + i % 2 + i / 2 * 8; }

  __device__ void load_values(std::int32_t begin, const KeyRunPlace& place,
                              ValueWords& values) const {
    const KeyRun run = runs_.shared.runs[place.block][place.run];
    const std::int64_t found = runs_.find_key(run, begin + place.block * kTensorKeys).at +
                               kv_value_distance(runs_.params.kv);
    const int d = first_dim(0) + kSliceTiles * fragment_row();
    PACELINE_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int first = half * kTensorInputs;
      if (run.in_own_slots != 0) {
        const std::int64_t page = __shfl_sync(kWholeWarp, found, first) + d;
        PACELINE_UNROLL
        for (int i = 0; i < 4; ++i) {
          const int key = key_of_word(i);
          load_value(page + std::int64_t{key} * runs_.dim(), first + key < run.keys, half, i,
                     values);
        }
      } else {
        PACELINE_UNROLL
        for (int i = 0; i < 4; ++i) {
          const int key = first + key_of_word(i);
          load_value(__shfl_sync(kWholeWarp, found, key) + d, key < run.keys, half, i, values);
        }
      }
    }
  }
  __device__ void load_value(std::int64_t at, bool is_seen, int half, int i,
                             ValueWords& values) const {
    PACELINE_UNROLL
    for (int slice = 0; slice < kSlices; ++slice) {
      constexpr int kNextSlice = kTensorBlocks * kSliceDims;
      const bool exists = is_seen && first_dim(slice) + kSliceTiles * fragment_row() < runs_.dim();
      values.word[slice][half][i] =
          exists ? runs_.template load<std::uint32_t>(at + slice * kNextSlice) : 0;
    }
  }

  /// Weights times values of a run. A value that is not finite and that some of its rows do not see
  /// would be multiplied by their weight of 0, and make NaN: then rows that see as many keys go
  /// together, with zeros for what they do not see.
  __device__ void add_run(std::int32_t begin, const KeyRunPlace& place, const ValueWords& values,
                          Outputs& out) const {
    const KeyRun run = runs_.shared.runs[place.block][place.run];
    if (kInt8 || run.keys_of_all == run.keys ||
        __any_sync(kWholeWarp, has_non_finite(values, run.keys_of_all)) == 0) {
      add_products(place.block, run.queries, values, out);
      return;
    }
    const std::int32_t from = begin + place.block * kTensorKeys;
    for (std::uint32_t left = run.queries; left != 0;) {
      const int keys = runs_.seen(lowest(left), from);
      const int q = lane_of_warp();
      const std::uint32_t queries = __ballot_sync(
          kWholeWarp, q < Runs::kQueries && is_among(left, q) && runs_.seen(q, from) == keys);
      add_products(place.block, queries, first_values(values, keys), out);
      left &= ~queries;
    }
  }

  /// Whether one of a lane's values is not finite, of the keys that not all rows see.
  __device__ static bool has_non_finite(const ValueWords& values, int keys_of_all) {
    bool found = false;
    PACELINE_UNROLL
    for (int i = 0; i < 8 * kSlices; ++i) {
      const std::uint32_t word = values.word[i / 8][i / 4 % 2][i % 4];
      constexpr std::uint32_t kLow = 0x7f80, kHigh = 0x7f800000;
      found |= i / 4 % 2 * kTensorInputs + key_of_word(i % 4) >= keys_of_all &&
               ((word & kLow) == kLow || (word & kHigh) == kHigh);
    }
    return found;
  }
  __device__ static ValueWords first_values(const ValueWords& values, int keys) {
    ValueWords first;
    PACELINE_UNROLL
    for (int i = 0; i < 8 * kSlices; ++i) {
      const bool is_one = i / 4 % 2 * kTensorInputs + key_of_word(i % 4) < keys;
      first.word[i / 8][i / 4 % 2][i % 4] = is_one ? values.word[i / 8][i / 4 % 2][i % 4] : 0;
    }
    return first;
  }

  /// The second operand of 16 keys and the dimensions of a column of words.
  __device__ static Words2 columns(const std::uint32_t (&words)[4], int column) {
    if constexpr (kInt8) {
      const auto which = static_cast<std::uint32_t>(column | (4 + column) << 8);
      return {widen_int8x2(pick_bytes(words[0], words[1], which)),
              widen_int8x2(pick_bytes(words[2], words[3], which))};
    } else {
      const std::uint32_t which = column == 0 ? 0x5410 : 0x7632;
      return {pick_bytes(words[0], words[1], which), pick_bytes(words[2], words[3], which)};
    }
  }

  __device__ void add_products(int block, std::uint32_t queries, const ValueWords& values,
                               Outputs& out) const {
    __syncwarp();  // loads of keys that are not there have split it
    Words4 weights[kTiles][2];
    float rescale[kTiles][2];
    PACELINE_UNROLL
    for (int tile = 0; tile < kTiles; ++tile) {
      PACELINE_UNROLL
      for (int half = 0; half < 2; ++half) {
        const auto& stored = runs_.shared.scores[block][tile][2 * half];
        const Words2 upper = stored[0][lane_of_warp()];
        const Words2 lower = stored[1][lane_of_warp()];
        weights[tile][half] = {upper.word[0], lower.word[0], upper.word[1], lower.word[1]};
        rescale[tile][half] = runs_.shared.rescale[block][query_of(tile, half)];
      }
    }
    PACELINE_UNROLL
    for (int slice = 0; slice < kSlices; ++slice) {
      if (first_dim(slice) >= runs_.dim()) break;
      PACELINE_UNROLL
      for (int column = 0; column < kSliceTiles; ++column) {
        const Words2 operands[] = {columns(values.word[slice][0], column),
                                   columns(values.word[slice][1], column)};
        PACELINE_UNROLL
        for (int tile = 0; tile < kTiles; ++tile) {
          float(&own)[4] = out.sum[slice][tile][column];
          float sums[4];
          PACELINE_UNROLL
          for (int i = 0; i < 4; ++i) sums[i] = own[i] * rescale[tile][i / 2];
          multiply_bf16(sums, weights[tile][0], operands[0]);
          multiply_bf16(sums, weights[tile][1], operands[1]);
          PACELINE_UNROLL
          for (int i = 0; i < 4; ++i) {
            if (is_among(queries, query_of(tile, i / 2))) own[i] = sums[i];
          }
        }
      }
    }
  }

  const Runs& runs_;
};

}  // namespace paceline::kernels::cuda
