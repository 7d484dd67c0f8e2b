#include "kernels/core/error.h"
#include "parallel/nccl/calls.h"

namespace paceline::parallel {

std::string nccl_missing() {
  return "this paceline was built without NCCL (see PACELINE_NCCL in docs/cuda.md)";
}

std::unique_ptr<NcclCalls> make_nccl_calls(const kernels::NativeStream&) {
  throw ConfigError("--exchange nccl: {}", nccl_missing());
}

}  // namespace paceline::parallel
