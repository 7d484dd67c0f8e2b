#include <algorithm>
#include <cstdint>

#include "kernels/core/accept.h"
#include "kernels/cuda/block.h"
#include "kernels/cuda/intrinsics.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ops.h"

namespace paceline::kernels::cuda {
namespace {

// A warp for each tree. Its threads look for the next node together and know the same of the path.
__global__ void __launch_bounds__(kWarpThreads)
    accept_paths_kernel(const AcceptPathsParams params) {
  join_stream();
  const AcceptPlan& plan = params.plans[blockIdx.x];
  AcceptedPath& path = params.paths[blockIdx.x];
  std::int32_t row = plan.first;
  std::int32_t count = 0;
  std::int32_t token = 0;
  for (;;) {
    token = params.chosen[row];
    if (ends_walk(params, plan, token, count + 1)) break;
    const std::int32_t at = row - plan.first;
    std::int32_t child = plan.nodes;
    for (std::int32_t node = at + lane_of_warp(); node < plan.nodes; node += kWarpThreads) {
      const std::int32_t its_row = plan.first + 1 + node;
      if (params.parents[its_row] == at - 1 && params.tokens[its_row] == token) {
        child = node;
        break;
      }
    }
    child = reduce_warp(child, [](std::int32_t a, std::int32_t b) { return std::min(a, b); });
    if (child == plan.nodes) break;
    if (count == kMaxPathLength) __trap();
    if (lane_of_warp() == 0) path.nodes[count] = child;
    ++count;
    row = plan.first + 1 + child;
  }
  for (std::int32_t i = count + lane_of_warp(); i < kMaxPathLength; i += kWarpThreads) {
    path.nodes[i] = 0;
  }
  if (lane_of_warp() > 0) return;
  path.sequence = plan.sequence;
  path.first_slot = plan.first_slot;
  path.token = token;
  path.count = count;
  params.last_rows[blockIdx.x] = row;
  if (params.heads != nullptr) params.heads[blockIdx.x] = head_after(plan, count, token);
}

}  // namespace

void accept_paths(const AcceptPathsParams& params, cudaStream_t stream) {
  launch("accept_paths", {params.trees, kWarpThreads}, stream, accept_paths_kernel, params);
}

}  // namespace paceline::kernels::cuda
