#pragma once

#include "kernels/cuda/device_matrix.h"

namespace paceline::kernels {

/// As a backend packs it, and all there.
inline cuda::DeviceMatrix packed_matrix(const MatrixSource& matrix, const Reduction& reduction,
                                        Backend& memory) {
  cuda::Staging staging(1);
  return {matrix, reduction, memory, staging};
}

}  // namespace paceline::kernels
