#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/cuda/device_matrix.h"
#include "kernels/cuda/row_major_matrix.h"

namespace paceline::kernels::cuda {

/// Lays activations out for the product with `weight`: what params.input makes of params.in, as
/// `tiles` of 8 rows, each of weight.panel_steps steps (linear_layout.h), rounded or quantized as
/// the format asks (as kernels/core/quantize.h and kernels/core/half.h say). Rows beyond
/// params.rows are +0. out [tiles, weight.panel_steps, row_bytes]. `zeroed` becomes zeros.
void lay_out_rows(const DeviceMatrixView& weight, const LinearParams& params, std::int64_t tiles,
                  std::byte* out, std::span<unsigned> zeroed, cudaStream_t stream);

/// The same row by row, rounded. out [params.rows, weight.stride()], +0 behind the columns.
void lay_out_rows(const RowMajorMatrix& weight, const LinearParams& params, std::uint16_t* out,
                  cudaStream_t stream);

}  // namespace paceline::kernels::cuda
