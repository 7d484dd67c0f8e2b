#include "kernels/core/accept.h"
#include "kernels/cpu/ops.h"

namespace paceline::kernels::cpu {

void accept_paths(const AcceptPathsParams& params) {
  for (std::int64_t tree = 0; tree < params.trees; ++tree) walk_tree(params, tree);
}

}  // namespace paceline::kernels::cpu
