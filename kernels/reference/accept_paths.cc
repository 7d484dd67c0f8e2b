#include "kernels/core/accept.h"
#include "kernels/reference/ops.h"

namespace paceline::kernels::reference {

void accept_paths(const AcceptPathsParams& params) {
  for (std::int64_t tree = 0; tree < params.trees; ++tree) walk_tree(params, tree);
}

}  // namespace paceline::kernels::reference
