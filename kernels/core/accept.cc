#include "kernels/core/accept.h"

#include "kernels/core/error.h"

namespace paceline::kernels {

void walk_tree(const AcceptPathsParams& params, std::int64_t tree) {
  const AcceptPlan& plan = params.plans[tree];
  AcceptedPath& path = params.paths[tree];
  path = {.sequence = plan.sequence, .first_slot = plan.first_slot};
  std::int32_t row = plan.first;
  for (;;) {
    path.token = params.chosen[row];
    if (ends_walk(params, plan, path.token, path.count + 1)) break;
    std::int32_t child = row - plan.first;  // the first node that can be one
    const auto is_child = [&] {
      const std::int32_t at = plan.first + 1 + child;
      return params.parents[at] == row - plan.first - 1 && params.tokens[at] == path.token;
    };
    while (child < plan.nodes && !is_child()) ++child;
    if (child == plan.nodes) break;
    check(path.count < kMaxPathLength, "accept_paths: a path of more than {} nodes",
          kMaxPathLength);
    path.nodes[path.count++] = child;
    row = plan.first + 1 + child;
  }
  params.last_rows[tree] = row;
  if (params.heads != nullptr) params.heads[tree] = head_after(plan, path.count, path.token);
}

void check_paths(const CompactKvParams& params) {
  for (std::int64_t p = 0; p < params.count; ++p) {
    const AcceptedPath& path = params.paths[p];
    check(path.count >= 0 && path.count <= kMaxPathLength, "compact_kv: a path of {} nodes",
          path.count);
    for (std::int32_t i = 0; i < path.count; ++i) {
      check(in_order(path, i), "compact_kv: node {} of a path is {}", i, path.nodes[i]);
    }
  }
}

}  // namespace paceline::kernels
