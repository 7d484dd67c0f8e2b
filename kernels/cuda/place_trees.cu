#include <cstdint>

#include "kernels/core/tree_rows.h"
#include "kernels/cuda/block.h"
#include "kernels/cuda/elements.h"
#include "kernels/cuda/intrinsics.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ops.h"

namespace paceline::kernels::cuda {
namespace {

constexpr int kPlaceThreads = 64;

__global__ void resume_sequences_kernel(const ResumeSequencesParams params) {
  join_stream();
  for (std::int64_t i = first_element(); i < params.count; i += element_step()) {
    resume_sequence(params, i);
  }
}

// A block for each place, a thread for each row.
__global__ void __launch_bounds__(kPlaceThreads) place_trees_kernel(const PlaceTreesParams params) {
  join_stream();
  const TreePlace& place = params.places[blockIdx.x];
  const PathTree tree = place.tree < 0 ? PathTree{} : params.trees[place.tree];
  const PathNode* nodes = place.tree < 0 ? nullptr : params.nodes + place.tree * params.most_nodes;
  if (!fits(tree, place)) __trap();
  if (threadIdx.x == 0) params.batch.accept[place.accept].nodes = tree.nodes;
  for (auto i = static_cast<std::int32_t>(threadIdx.x); i < place.rows; i += kPlaceThreads) {
    if (!place_row(params.batch, place, nodes, tree.nodes, i)) __trap();
  }
  for (auto i = static_cast<std::int32_t>(threadIdx.x); i < place.sampled_rows;
       i += kPlaceThreads) {
    place_sampled_row(params.batch, place, nodes, tree.nodes, i);
  }
}

}  // namespace

void resume_sequences(const ResumeSequencesParams& params, cudaStream_t stream) {
  launch("resume_sequences", shape_of_elements(params.count), stream, resume_sequences_kernel,
         params);
}

void place_trees(const PlaceTreesParams& params, cudaStream_t stream) {
  launch("place_trees", {params.count, kPlaceThreads}, stream, place_trees_kernel, params);
}

}  // namespace paceline::kernels::cuda
