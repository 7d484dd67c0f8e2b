#include "kernels/cuda/row_major.h"

#include <cstdint>

#include "kernels/core/half.h"
#include "kernels/cuda/elements.h"
#include "kernels/cuda/intrinsics.h"
#include "kernels/cuda/launch.h"

namespace paceline::kernels::cuda {
namespace {

/// from [rows, cols]; to [rows, stride].
__global__ void place_rows_kernel(const std::uint16_t* from, std::int64_t rows, std::int64_t cols,
                                  std::int64_t stride, std::uint16_t* to) {
  for (std::int64_t i = first_element(); i < rows * cols; i += element_step()) {
    to[i / cols * stride + i % cols] = from[i];
  }
}

__global__ void write_zeros_kernel(float* out, std::int64_t count) {
  join_stream();
  for (std::int64_t i = first_element(); i < count; i += element_step()) out[i] = 0.0f;
}

/// table [table_rows, stride]; out [rows, cols].
__global__ void embed_row_major_kernel(const std::uint16_t* table, std::int64_t table_rows,
                                       std::int64_t cols, std::int64_t stride, bool is_bf16,
                                       const std::int32_t* tokens, std::int32_t first_token,
                                       float* out, std::int64_t rows) {
  join_stream();
  for (std::int64_t i = first_element(); i < rows * cols; i += element_step()) {
    const std::int64_t row = std::int64_t{tokens[i / cols]} - first_token;
    float value = 0.0f;
    if (row >= 0 && row < table_rows) {
      const std::uint16_t bits = table[row * stride + i % cols];
      value = (is_bf16 ? bf16_to_fp32(bits) : fp16_to_fp32(bits)) + 0.0f;
    }
    out[i] = value;
  }
}

bool is_bf16(const RowMajorMatrix& matrix) { return matrix.format() == WeightFormat::kBf16; }

}  // namespace

void place_rows(const RowMajorMatrix& matrix, const std::uint16_t* piece, std::int64_t rows,
                std::uint16_t* to, cudaStream_t stream) {
  LaunchShape shape = shape_of_elements(rows * matrix.cols());
  shape.after_all = true;  // the copy of `piece`, too, which is on another stream
  launch("place_rows", shape, stream, place_rows_kernel, piece, rows, matrix.cols(),
         matrix.stride(), to);
}

void write_zeros(float* out, std::int64_t count, cudaStream_t stream) {
  launch("write_zeros", shape_of_elements(count), stream, write_zeros_kernel, out, count);
}

void embed(const EmbedParams& params, const RowMajorMatrix& table, cudaStream_t stream) {
  launch("embed", shape_of_elements(params.rows * table.cols()), stream, embed_row_major_kernel,
         table.values(), table.rows(), table.cols(), table.stride(), is_bf16(table), params.tokens,
         params.first_token, params.out, params.rows);
}

}  // namespace paceline::kernels::cuda
