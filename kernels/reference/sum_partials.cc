#include <vector>

#include "kernels/core/error.h"
#include "kernels/reference/ops.h"

namespace paceline::kernels::reference {

void sum_partials(const SumPartialsParams& params) {
  std::vector<float> stack;
  for (std::int64_t i = 0; i < params.size; ++i) {
    stack.clear();
    for (std::size_t p = 0; p < params.merges.size(); ++p) {
      stack.push_back(params.partials[static_cast<std::int64_t>(p) * params.size + i]);
      for (int merge = 0; merge < params.merges[p]; ++merge) {
        check(stack.size() >= 2, "sum_partials: partial {} merges more than there is", p);
        const float top = stack.back();
        stack.pop_back();
        stack.back() = stack.back() + top;
      }
    }
    check(stack.size() == 1, "sum_partials: the merges leave {} sums, not one", stack.size());
    params.out[i] = params.residual ? params.residual[i] + stack[0] : stack[0];
  }
}

}  // namespace paceline::kernels::reference
