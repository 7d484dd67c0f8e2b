#include <numeric>

#include "kernels/reference/ops.h"

namespace paceline::kernels::reference {

void sum_words(const SumWordsParams& params) {
  *params.sum = std::accumulate(params.words, params.words + params.count, std::uint64_t{0});
}

}  // namespace paceline::kernels::reference
