#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/row_major_matrix.h"
#include "kernels/params.h"

// What a product by cuBLASLt needs beside it, each put on a stream and not waited for.

namespace paceline::kernels::cuda {

/// A piece of the matrix's rows, [rows, matrix.cols()], to where they stand in it; what is behind
/// the columns stays.
void place_rows(const RowMajorMatrix& matrix, const std::uint16_t* piece, std::int64_t rows,
                std::uint16_t* to, cudaStream_t stream);

/// A sum over no inputs: out [count] becomes +0.
void write_zeros(float* out, std::int64_t count, cudaStream_t stream);

/// `embed` from such a matrix.
void embed(const EmbedParams& params, const RowMajorMatrix& table, cudaStream_t stream);

}  // namespace paceline::kernels::cuda
