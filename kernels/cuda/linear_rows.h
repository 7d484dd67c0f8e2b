#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/device_matrix.h"

namespace paceline::kernels::cuda {

/// Lays activations out for the product with `weight`: `tiles` of 8 rows, each of
/// weight.panel_steps steps (linear_layout.h), rounded or quantized as the format asks (as
/// kernels/core/quantize.h and kernels/core/half.h say). Rows beyond `rows` are +0.
/// in [rows, weight.cols], out [tiles, weight.panel_steps, row_bytes].
void lay_out_rows(const DeviceMatrixView& weight, const float* in, std::int64_t rows,
                  std::int64_t tiles, std::byte* out, cudaStream_t stream);

}  // namespace paceline::kernels::cuda
