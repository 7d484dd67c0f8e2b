#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/core/host_matrix.h"
#include "kernels/cuda/device_matrix.h"

namespace paceline::kernels::cuda {

/// Lays `rows` rows of a matrix out in its panels (linear_layout.h), from `first_row` on, a
/// multiple of 16. Their number is one too, but where the matrix ends. `in` is device memory,
/// arrays as in a HostMatrix; steps [panels, panel_steps] and channel_scales [panels * 16] are the
/// whole matrix's, and zero where outputs end.
void lay_out_weights(const DeviceMatrixView& weight, const StoredRows& in, std::int64_t first_row,
                     std::int64_t rows, std::byte* steps, float* channel_scales,
                     cudaStream_t stream);

}  // namespace paceline::kernels::cuda
